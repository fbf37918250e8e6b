"""Rows, templates and evidence for tests of the fused kernel, and runs of the kernel for a Python of its own."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from cryolike_scipion.engine import fused_kernel
from cryolike_scipion.engine.correlation import correlate
from cryolike_scipion.engine.fused_kernel import FusedScorer, plain_scores
from cryolike_scipion.engine.likelihood import Evidence, ScalePrior
from cryolike_scipion.engine.radial_basis import OrderBlock, RadialBasis
from cryolike_scipion.engine.scoring import GridEvidence


@dataclass(frozen=True)
class Setting:
    """Sizes and data of a case.

    Attributes
    ----------
    sizes : images, shifts, views, in-plane angles.
    ranks : of every order.
    information : of the views that rows hold, nat.
    mu, tau : prior of the scale, in units of the true scale and of the noise; tau 0: flat.
    lift : offset of b, in units of its standard deviation: far above 0, every pose has the contrast inverted.
    turning : whether <T,T> changes with the in-plane angle.
    """

    sizes: tuple[int, int, int, int]
    ranks: list[int]
    information: float = 40.0
    mu: float = 1.0
    tau: float = 1.0
    lift: float = 0.0
    turning: bool = False


_FEW = [7, 5, 5, 3, 3, 1]
CASES = {
    "ragged": Setting((3, 7, 11, 40), [7, 7, 6, 5, 5, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1]),
    "one of each": Setting((1, 1, 1, 8), [1, 2, 3]),
    "one shift, many views": Setting((5, 1, 90, 36), [9, 4, 4, 4, 2, 1, 1], mu=0.0),
    "order 0 alone": Setting((2, 3, 5, 6), [17]),
    "tiles and orders that just fit": Setting((2, 8, 16, 64), [8] * 32),
    "many orders": Setting((1, 9, 6, 250), [21] * 20 + [13] * 30 + [6] * 50),
    "several parts": Setting((1, 3, 3, 384), [70] * 20 + [33] * 30 + [6] * 50),
    "three parts of 64": Setting((1, 2, 17, 384), [6] * 90),
    "flat prior": Setting((3, 5, 7, 40), _FEW, tau=0.0),
    "no signal where one is expected": Setting((2, 5, 7, 32), _FEW, information=300.0, mu=2.0, tau=0.003),
    "inverted contrast": Setting((2, 5, 7, 32), [4, 3, 2], mu=0.0, lift=25.0),
    "hundreds of nat": Setting((2, 4, 7, 40), _FEW, information=700.0),
    "turning power": Setting((3, 5, 7, 40), _FEW, turning=True),
}
_NOISE = 30.0  # standard deviation of a value of an image


def orders(ranks: list[int]) -> RadialBasis:
    """A basis of these ranks, equal ones in blocks; its functions are not needed here."""
    blocks: list[OrderBlock] = []
    for q, rank in enumerate(ranks):
        if blocks and blocks[-1].rank == rank:
            last = blocks.pop()
            blocks.append(OrderBlock(last.first, last.count + 1, rank, last.start, last.vectors))
        else:
            start = blocks[-1].start + blocks[-1].count * blocks[-1].rank if blocks else 0
            blocks.append(OrderBlock(q, 1, rank, start, torch.zeros(0)))
    return RadialBasis(tuple(blocks))


@dataclass
class Case:
    """Arguments of `plain_scores`, and what the likelihood depends on beside b."""

    rows: torch.Tensor
    templates: torch.Tensor
    ranks: list[int]
    n_inplane: int
    scores: GridEvidence
    image_power: torch.Tensor
    dof: torch.Tensor
    prior: ScalePrior

    @property
    def basis(self) -> RadialBasis:
        return orders(self.ranks)

    @property
    def arguments(self):
        return self.rows, self.templates, self.basis, self.n_inplane, self.scores

    @classmethod
    def of(cls, name: str, dtype: torch.dtype = torch.complex64) -> Case:
        setting = CASES[name]
        (images, shifts, views, angles), ranks = setting.sizes, setting.ranks
        random = torch.Generator().manual_seed(sorted(CASES).index(name))
        real = torch.float64 if dtype == torch.complex128 else torch.float32

        def draw(*shape, dtype=real, kind=torch.randn):
            return kind(*shape, dtype=dtype, generator=random)

        templates = draw(views, sum(ranks), dtype=dtype)
        weight = torch.cat([torch.full((rank,), 1.0 if q == 0 else 2.0) for q, rank in enumerate(ranks)])
        own = (templates.abs() ** 2 * weight).sum(dim=1).to(real)[None, :, None]
        scale = float((2 * setting.information * _NOISE**2 / own.mean()).sqrt())
        rows = _NOISE * draw(images * shifts, sum(ranks), dtype=dtype)
        rows += scale * templates[torch.arange(images * shifts) % views].conj()
        power = own * (1 + 0.1 * draw(images, views, 1, kind=torch.rand))
        n = 3000 + 500 * draw(images, 1, 1, kind=torch.rand)
        image_power = _NOISE**2 * (n + 2 * setting.information) * (1 + 0.1 * draw(images, 1, 1, kind=torch.rand))
        prior = ScalePrior(setting.mu * scale, setting.tau) if setting.tau else ScalePrior(flat=True)
        offset = 5 * draw(images, views, 1) + setting.lift * _NOISE * own.sqrt()
        evidence, turn = Evidence.of(power, image_power, n, prior), None
        if setting.turning:
            extra = 1 / setting.tau**2
            angular = power * (1 + 0.2 * torch.sin(torch.arange(angles) * (4 * torch.pi / angles)).to(real))
            turn, power = torch.sqrt((power + extra) / (angular + extra)), angular
        scores = GridEvidence(evidence, offset, power, turn)
        return cls(rows, templates, ranks, angles, scores, image_power, n, prior)


def compare() -> dict[str, dict[str, float]]:
    """Largest deviations of the kernel from the plain form for every case, on the CPU; TRITON_INTERPRET has to be set."""
    found: dict[str, dict] = {"parts": {}}
    with mock.patch.object(fused_kernel, "uses_kernel", lambda *_: True):
        for name in CASES:
            case = Case.of(name)
            scorer = FusedScorer(*case.arguments[1:4])
            assert scorer._layout is not None
            found["parts"][scorer._layout.part] = name
            packed = scorer._layout.pack(case.rows), scorer._layout.pack(case.templates)
            got = fused_kernel.triton_scores(*packed, scorer._layout, case.scores)
            plain = plain_scores(*case.arguments)
            image = torch.arange(len(case.rows)) // (len(case.rows) // len(case.scores.offset))
            b = case.scores.take(image).effective(correlate(*case.arguments[:4]))
            size = float(b.square().mean().sqrt())
            at = b.gather(2, got.inplane.long()[..., None])[..., 0]
            found[name] = {
                "best": _largest(got.best - plain.best) / size,
                "b at inplane": _largest(at - plain.best) / size,
                "log_mass": _largest(got.log_mass - plain.log_mass),
                "mean_log": _largest(got.mean_log - plain.mean_log),
                "lowest": float(plain.log_mass.amin()),
                "highest": float(plain.log_mass.amax()),
            }
        case = Case.of("ragged")
        scorer = FusedScorer(*case.arguments[1:4])
        whole = scorer(case.rows, case.scores)
        views = slice(2, 9)
        part = scorer(case.rows, case.scores.take((slice(None), views)), views)
        found["views"] = {n: _largest(getattr(whole, n)[:, views] - getattr(part, n)) for n in part.__dataclass_fields__}
        assert all(fused_kernel._trusted.values())
    return found


def _largest(difference: torch.Tensor) -> float:
    return float(difference.double().abs().nan_to_num(torch.inf).max())


def compiled(capability: int, part: int, views: int, turning: bool) -> dict[str, int]:
    """What the compiler makes of the kernel for a GPU of a compute capability (80: 8.0); no GPU is needed."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from cryolike_scipion.engine.fused_triton import score_tiles

    fixed = {"SLOTS": 16, "CHUNK": 16, "ROWS": 16, "VIEWS": views, "PART": part, "TURNING": turning, "PRECISION": "tf32x3"}
    floats = ("rows", "templates", "waves", "fields", "turns", "best", "log_mass", "mean_log")
    kinds = {**dict.fromkeys(floats, "*fp32"), **dict.fromkeys(("starts", "widths", "inplane"), "*i32")}
    names = score_tiles.arg_names
    aligned = [i for i, name in enumerate(names) if name in kinds or name.endswith("_plane") or name in ("size", "angles")]
    source = ASTSource(
        score_tiles,
        {name: "constexpr" if name in fixed else kinds.get(name, "i32") for name in names},
        constexprs=fixed,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    cubin = Path(triton.knobs.cache.dir) / "kernel.cubin"
    cubin.parent.mkdir(parents=True, exist_ok=True)
    cubin.write_bytes(made.asm["cubin"])
    usage = subprocess.run([str(tool), "-res-usage", str(cubin)], capture_output=True, text=True, check=True).stdout
    return {
        "shared": made.metadata.shared,
        "tensor core products": len(re.findall(r"mma\.sync|wgmma\.mma_async", made.asm["ptx"])),
        "local bytes": max(int(size) for size in re.findall(r"STACK:(\d+)", usage)),
    }
