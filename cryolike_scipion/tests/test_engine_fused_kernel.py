"""The kernel for GPUs: its plain form against sums in float64, and Triton's interpreter and compiler against the plain form."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, logsumexp

from cryolike_scipion.engine import fused_kernel
from cryolike_scipion.engine.fused_kernel import FusedScorer, FusedScores, PackedBasis, fused_scores, plain_scores, uses_kernel
from cryolike_scipion.engine.likelihood import Evidence

from .fused_cases import CASES, Case, orders

HERE = Path(__file__).resolve().parent
NAMES = ("best", "log_mass", "mean_log")
# Largest error of the kernel's arithmetic in float32: of b over its root mean square, and of logarithms in nat for scores of
# hundreds of nat.
TOLERANCE = {"best": 2e-6, "log_mass": 2e-3, "mean_log": 2e-3}


def direct(case):
    """b, ln Σ and mean log-ratio by sums over orders and angles one by one, in float64."""
    ranks, angle = case.ranks, 2 * np.pi * np.arange(case.n_inplane) / case.n_inplane
    starts = np.concatenate([[0], np.cumsum(ranks)])
    rows, templates = (t.numpy().astype(np.complex128) for t in (case.rows, case.templates))
    b = np.zeros((len(rows), len(templates), case.n_inplane))
    for q in range(len(ranks)):
        part = slice(starts[q], starts[q + 1])
        product = rows[:, part] @ templates[:, part].T
        b += (1 if q == 0 else 2) * (product[..., None] * np.exp(1j * q * angle)).real
    image = np.arange(len(rows)) // (len(rows) // len(case.dof))
    power, offset, c, n = (t.double() for t in (case.scores.power, case.scores.offset, case.image_power, case.dof))
    b -= offset.numpy()[image]
    known = Evidence.of(power, c, n, case.prior)  # at every angle, where <T,T> depends on it
    e = {name: getattr(known, name).numpy()[image] for name in known.__dataclass_fields__}
    u = (e["curve"] * b + e["slope"]) * b + e["base"]
    t = (e["scale_gain"] * b + e["scale_shift"]) * e["inverse_width"] / np.sqrt(1 + u)
    logs = e["constant"] - e["half_dof"] * np.log1p(u) + log_ndtr(t) + np.log(e["prior_factor"])
    if case.scores.turn is not None:  # the best effective inner product is asked for
        s = case.prior.mu / case.prior.tau**2
        b = (b + s) * case.scores.turn.double().numpy()[image] - s
    total = logsumexp(logs, axis=2)
    return b, total, (np.exp(logs - total[..., None]) * logs).sum(axis=2)


def interpreted(code, interpret, **environ):
    """Run code in a Python of its own, since Triton decides at its import whether to interpret; parse what it prints."""
    environ = {**os.environ, **environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    environ.pop("TRITON_INTERPRET", None)
    if interpret:
        environ["TRITON_INTERPRET"] = "1"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def triton():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")


@pytest.fixture(scope="module")
def kernel(triton):
    """What `fused_cases.compare` finds for every case under Triton's interpreter."""
    code = "import json; from cryolike_scipion.tests.fused_cases import compare; print(json.dumps(compare()))"
    return interpreted(code, True)


@pytest.mark.parametrize("name", CASES)
def test_plain_scores_are_the_sums(name):
    case = Case.of(name)
    b, log_mass, mean_log = direct(case)
    found = plain_scores(*case.arguments)
    size = np.sqrt((b**2).mean())
    at = np.take_along_axis(b, found.inplane.numpy()[..., None].astype(np.int64), axis=2)[..., 0]
    np.testing.assert_allclose(found.best, b.max(axis=2), atol=1e-5 * size)
    np.testing.assert_allclose(at, b.max(axis=2), atol=1e-5 * size)
    np.testing.assert_allclose(found.log_mass, log_mass, atol=5e-3)
    np.testing.assert_allclose(found.mean_log, mean_log, atol=5e-3)


def test_plain_scores_in_double_precision():
    case = Case.of("ragged", torch.complex128)
    b, log_mass, mean_log = direct(case)
    found = plain_scores(*case.arguments)
    np.testing.assert_allclose(found.best, b.max(axis=2), atol=1e-9)
    np.testing.assert_allclose(found.log_mass, log_mass, atol=1e-9)
    np.testing.assert_allclose(found.mean_log, mean_log, atol=1e-9)
    assert (found.inplane.numpy() == b.argmax(axis=2)).all()


def test_plain_scores_do_not_depend_on_the_block(monkeypatch):
    case = Case.of("ragged")
    whole = plain_scores(*case.arguments)
    monkeypatch.setattr(fused_kernel, "_SCORES_AT_ONCE", 5 * len(case.templates) * case.n_inplane)
    parts = plain_scores(*case.arguments)
    for name in (*NAMES, "inplane"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_does_as_the_plain_form(kernel, name):
    for what, limit in TOLERANCE.items():
        assert kernel[name][what] < limit, (what, kernel[name])
    assert kernel[name]["b at inplane"] < TOLERANCE["best"]


def test_cases_span_what_scores_can_be(kernel):
    assert kernel["no signal where one is expected"]["lowest"] < -500
    assert kernel["hundreds of nat"]["highest"] > 500
    assert kernel["inverted contrast"]["highest"] < 0


def test_the_kernel_takes_parts_of_the_views(kernel):
    assert max(kernel["views"].values()) == 0


def test_cases_reach_every_size_of_parts(kernel):
    assert {"32", "64", "128"} == set(kernel["parts"])


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("turning", [False, True])
def test_the_kernel_compiles_for_gpus(triton, tmp_path, capability, turning):
    # Shapes of a search at 128 px; the compiler needs no GPU.
    code = (
        "import json; from cryolike_scipion.tests.fused_cases import compiled;"
        f"print(json.dumps(compiled({capability}, 128, 8, {turning})))"
    )
    found = interpreted(code, False, TRITON_CACHE_DIR=str(tmp_path))
    assert found["tensor core products"] > 10
    assert found["shared"] <= 96 * 1024
    assert found["local bytes"] < 2048  # registers hold the sums and most of what is made of them


@pytest.mark.parametrize("count, rank", [(1, 1), (2, 7), (33, 9), (70, 20)])
def test_packing_keeps_every_coefficient(count, rank):
    basis = orders([max(1, rank - q // 3) for q in range(count)])
    layout = PackedBasis.of(basis, 2 * count + 6, "cpu")
    rows = torch.randn(3, basis.size, dtype=torch.complex64)
    packed = layout.pack(rows)
    assert packed.shape == (2, 3, layout.size)
    assert torch.equal(torch.complex(*packed)[:, layout.place], rows)
    assert (packed != 0).sum() == 2 * rows.numel()
    assert len(set(layout.place.tolist())) == basis.size
    # every coefficient meets the waves of its own order
    slot = torch.full((layout.size,), -1)
    for i, (start, width) in enumerate(zip(layout.starts.tolist(), layout.widths.tolist())):
        slot[start : start + 16 * width] = 16 * i + torch.arange(16).repeat_interleave(width)
    begin = 0
    for q in range(count):
        own = slot[layout.place[begin : begin + max(1, rank - q // 3)]].unique()
        begin += max(1, rank - q // 3)
        assert len(own) == 1
        assert (int(own) < 16 * layout.n_even) == (q % 2 == 0)
        angle = 2 * torch.pi * q * torch.arange(layout.n_half).double() / (2 * layout.n_half)
        wave = (1 if q == 0 else 2) * torch.stack([torch.cos(angle), -torch.sin(angle)])
        torch.testing.assert_close(layout.waves[:, int(own), : layout.n_half].double(), wave, atol=1e-6, rtol=0)


def test_too_few_or_odd_angles_are_refused():
    for count in (8, 11):
        with pytest.raises(ValueError, match="even number of angles, at least 10"):
            PackedBasis.of(orders([3] * 5), count, "cpu")


def test_rows_that_are_no_multiple_of_the_images_are_refused():
    case = Case.of("ragged")
    with pytest.raises(ValueError, match="images"):
        plain_scores(case.rows[:-1], *case.arguments[1:])


def test_importing_the_module_does_not_import_triton():
    code = "import sys, json; import cryolike_scipion.engine.fused_kernel; print(json.dumps('triton' in sys.modules))"
    assert interpreted(code, False) is False


def test_without_triton_torch_does_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it raises ImportError
    monkeypatch.delitem(sys.modules, "cryolike_scipion.engine.fused_triton", raising=False)
    fused_kernel._kernel.cache_clear()
    assert not uses_kernel(torch.device("cuda"), torch.complex64)
    case = Case.of("ragged")
    expected = plain_scores(*case.arguments)
    for name in (*NAMES, "inplane"):
        assert torch.equal(getattr(fused_scores(*case.arguments), name), getattr(expected, name))


def test_with_triton_the_kernel_is_for_single_precision_on_cuda(triton):
    code = (
        "import json, torch; from cryolike_scipion.engine.fused_kernel import uses_kernel;"
        "print(json.dumps([uses_kernel(torch.device(d), t) for d, t in"
        " (('cuda', torch.complex64), ('cuda', torch.complex128), ('cpu', torch.complex64))]))"
    )
    assert interpreted(code, False) == [True, False, False]


def _breaks(*_):
    raise RuntimeError("no such instruction")


def _wrong(rows, templates, layout, scores):
    found = FusedScores(*(torch.zeros(rows.shape[1], templates.shape[1]) for _ in range(4)))
    _wrong.calls += 1
    return found


@pytest.mark.parametrize("made, said", [(_breaks, "does not run"), (_wrong, "differs from plain torch")])
def test_a_kernel_that_fails_is_replaced(monkeypatch, caplog, made, said):
    _wrong.calls = 0
    monkeypatch.setattr(fused_kernel, "_trusted", {})
    monkeypatch.setattr(fused_kernel, "uses_kernel", lambda *_: True)
    monkeypatch.setattr(fused_kernel, "triton_scores", made)
    case = Case.of("ragged")
    expected = plain_scores(*case.arguments)
    scorer = FusedScorer(*case.arguments[1:4])
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            found = scorer(case.rows, case.scores)
        torch.testing.assert_close(found.log_mass, expected.log_mass)
    assert sum(said in record.getMessage() for record in caplog.records) == 1
    assert _wrong.calls == (made is _wrong)


def test_a_kernel_that_agrees_is_kept(monkeypatch):
    calls = []

    def same(rows, templates, layout, scores):
        calls.append(rows.shape)
        back = [torch.complex(*packed)[:, layout.place] for packed in (rows, templates)]
        return plain_scores(*back, case.basis, case.n_inplane, scores)

    monkeypatch.setattr(fused_kernel, "_trusted", {})
    monkeypatch.setattr(fused_kernel, "uses_kernel", lambda *_: True)
    monkeypatch.setattr(fused_kernel, "triton_scores", same)
    case = Case.of("ragged")
    scorer = FusedScorer(*case.arguments[1:4])
    for _ in range(2):
        torch.testing.assert_close(scorer(case.rows, case.scores).best, plain_scores(*case.arguments).best)
    assert len(calls) == 2 and list(fused_kernel._trusted.values()) == [True]
