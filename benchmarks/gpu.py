"""The fused kernel on a GPU, as a Markdown table: against plain torch and CryoLike's algorithm on the same GPU.

All score the same images, views and shifts over all in-plane angles, with templates and moved images prepared beforehand.
Ours give the best angle, the sum of the likelihood ratios and their mean log; the reference takes the largest inner product
alone. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import reference_kernel as reference
import torch
from common import markdown, print_machine
from kernel import Case
from torch import Tensor

from cryolike_scipion.engine import fused_kernel
from cryolike_scipion.engine.correlation import shift_factors, shifted_rows
from cryolike_scipion.engine.fused_kernel import FusedScorer, FusedScores, PackedBasis, plain_scores, uses_kernel
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.polar_grid import inplane_count
from cryolike_scipion.engine.radial_basis import RadialBasis
from cryolike_scipion.engine.scoring import GridEvidence, grid_evidence

_PRODUCT = 8192  # edge of the matrices whose product is the measure of what the GPU can do
_BATCHES = ((1, 32), (2, 128), (8, 128), (8, 512))  # images and templates at a time, of which the reference's best counts


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is scored, on one device: arguments of `plain_scores`."""

    rows: Tensor
    templates: Tensor
    basis: RadialBasis
    n_inplane: int
    scores: GridEvidence

    def plain(self) -> FusedScores:
        """By torch."""
        return plain_scores(self.rows, self.templates, self.basis, self.n_inplane, self.scores)

    def double(self, rows: int, views: int) -> FusedScores:
        """By torch in double precision, of the first rows of the first image and the first views."""
        few = self.scores.take((slice(0, 1), slice(0, views)))
        evidence = type(few.evidence)(**{f: v.double() for f, v in vars(few.evidence).items()})
        turn = None if few.turn is None else few.turn.double()
        scores = GridEvidence(evidence, few.offset.double(), few.power.double(), turn)
        parts = (t.to(torch.complex128) for t in (self.rows[:rows], self.templates[:views]))
        return plain_scores(*parts, self.basis, self.n_inplane, scores)


def prepare(case: Case, device: torch.device) -> Prepared:
    """Our images and templates of a case."""
    grid, bank = case.grid(), case.bank()
    images = case.polar(grid)
    factors = shift_factors(grid, case.shifts.origins, torch.float32)
    rows = torch.cat([shifted_rows(image[None, None], factors, bank.basis) for image in images.matched])
    templates = bank.templates(case.views)
    n_inplane = inplane_count(bank.basis.n_orders - 1)
    blocks = (dataclasses.replace(block, vectors=block.vectors.to(device)) for block in bank.basis.blocks)
    moved = type(images)(**{name: value.to(device) for name, value in vars(images).items()})
    there = type(templates)(**{name: value.to(device) for name, value in vars(templates).items()})
    scores = grid_evidence(moved, there, ScalePrior(), n_inplane)
    return Prepared(rows.to(device), there.rows, RadialBasis(tuple(blocks)), n_inplane, scores)


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The fastest of some calls after a first one, until the device has done the work."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def time_reference(case: Case, repeats: int, device: torch.device) -> float:
    """Seconds of CryoLike's algorithm on its own grid."""
    grid = reference.reference_grid(case.box, case.k_max)
    images = reference.full_circle(case.polar(grid).matched).to(device)
    templates = torch.fft.fft(reference.full_circle(case.slices(grid)), dim=-1, norm="forward").to(device)
    origins = torch.as_tensor(case.shifts.origins, device=device)
    found = []
    with device:
        for batch in _BATCHES:
            try:
                found.append(seconds(lambda: reference.search(images, templates, grid, origins, batch), repeats, device))  # noqa: B023
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
    return min(found)


def product_rate(device: torch.device, repeats: int) -> float:
    """Multiplications and additions per second of a large product of matrices in TF32, as measured."""
    a, b = torch.randn(2, _PRODUCT, _PRODUCT, device=device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return 2 * _PRODUCT**3 / seconds(lambda: a @ b, repeats, device)
    finally:
        torch.set_float32_matmul_precision(before)


def kernel_work(prepared: Prepared, device: torch.device) -> float:
    """Multiplications and additions of the kernel's products of matrices per row and view, each of three in TF32."""
    layout = PackedBasis.of(prepared.basis, prepared.n_inplane, device)
    parts = -(-layout.n_half // layout.part)
    return 3 * 2 * (parts * 4 * layout.size + 2 * layout.waves.shape[1] * parts * layout.part)


def measure(case: Case, device: torch.device, repeats: int) -> list[list[object]]:
    """Rows of the table for one case."""
    prepared = prepare(case, device)
    pairs = len(prepared.rows) * len(prepared.templates)
    plain = seconds(prepared.plain, repeats, device)
    theirs = time_reference(case, repeats, device)
    few = min(len(case.shifts), len(prepared.rows)), min(64, len(prepared.templates))
    exact = prepared.double(*few)

    def row(name: str, taken: float, found: FusedScores | None, share: str = "") -> list[object]:
        error = ""
        if found is not None:
            error = f"{float((found.log_mass[: few[0], : few[1]] - exact.log_mass).abs().max()):.1e}"
        return [
            case.box, name, f"{1e6 * taken / pairs:.4f}", f"{prepared.n_inplane * pairs / taken / 1e9:.2f}",
            f"{theirs / taken:.1f}", share, error,
        ]  # fmt: skip

    rows = [row("CryoLike's, written in torch", theirs, None), row("ours, plain torch", plain, prepared.plain())]
    if uses_kernel(device, prepared.templates.dtype):
        scorer = FusedScorer(prepared.templates, prepared.basis, prepared.n_inplane)
        taken = seconds(lambda: scorer(prepared.rows, prepared.scores), repeats, device)
        if not all(fused_kernel._trusted.values()):
            raise SystemExit("the kernel does not run here, or not rightly: see the warning above")
        share = kernel_work(prepared, device) * pairs / taken / product_rate(device, repeats)
        rows.append(row("ours, fused kernel", taken, scorer(prepared.rows, prepared.scores), f"{share:.2f}"))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 192], help="box sizes in pixels")
    parser.add_argument("--shifts", type=int, default=5, help="shifts along each axis")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--step", type=float, default=6.4, help="degrees between views (6.4: about 1,300)")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many runs counts")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing was measured.")
        return
    print_machine()
    print(f"\n{options.images} images, {options.shifts**2} shifts, views every {options.step:g}°, float32; {device}.\n")
    header = (
        "box", "algorithm", "µs per image × template × shift", "10⁹ poses/s", "ratio", "share of a TF32 product's rate",
        "largest error, nat",
    )  # fmt: skip
    rows = [
        row
        for box in options.boxes
        for row in measure(Case(box, options.images, options.shifts, options.step), device, options.repeats)
    ]
    print(markdown(header, rows))
    if device.type == "cuda" and len(rows) < 3 * len(options.boxes):
        print("\nTriton cannot be imported here: the fused kernel was not measured.")


if __name__ == "__main__":
    main()
