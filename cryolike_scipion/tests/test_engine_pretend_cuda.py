"""The engine on tensors with a GPU's rules (`pretend_cuda`): nothing mixes devices, and the numbers are those of the CPU."""

import numpy as np
import pytest
import torch

from cryolike_scipion import engine
from cryolike_scipion.engine import compute
from cryolike_scipion.engine.results import load_results

from . import pretend_cuda, small_sets
from .pretend_cuda import DEVICE, PretendCuda, PretendTensor

FIELDS = ("integrated", "max", "cc", "rot", "tilt", "psi", "origin_x", "origin_y", "scale", "pose_posterior")
STORED = {"resolution": 14.0, "mask_diameter": 60.0}


@pytest.fixture
def gpu(monkeypatch):
    """Run a verb as with ``--device cuda``."""

    def run(verb, **parameters):
        with monkeypatch.context() as patch, PretendCuda():
            patch.setattr(compute, "choose_device", lambda name: str(DEVICE))
            engine.run(verb, **parameters)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a mode is seen by its own thread alone
    return run


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    maps = small_sets.write_maps(folder)
    made = small_sets.simulate(folder / "particles", maps, astigmatism=800.0)
    text = (made / "truth.star").read_text()
    for row in [line for line in text.splitlines() if line.startswith("1 ")][:1]:
        text = text.replace(row, f"{row} 2.0 [0,0,90] [0,0,0,0,800] 1.02", 1)
    last = "_rlnAmplitudeContrast #8\n"
    assert last in text
    labels = ("rlnBeamTiltX", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00")
    text = text.replace(last, last + "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 9)))
    (made / "aberrated.star").write_text(text)
    return maps, made


@pytest.mark.parametrize(
    "star, options",
    [
        ("particles.star", {"search": "exhaustive", "keep": "template", "levels": 1}),
        ("particles.star", {"search": "exhaustive", "keep": "rotation", "precision": "double"}),
        ("particles.star", {"search": "exhaustive", "scale": "free", "mask_diameter": 40.0}),
        ("particles.star", {"search": "hierarchical", "levels": 1}),
        ("truth.star", {"search": "local", "levels": 1}),
        ("truth.star", {"search": "fixed"}),
        ("aberrated.star", {"search": "fixed"}),
    ],
    ids=["exhaustive", "double", "free and masked", "hierarchical", "local", "fixed", "aberrations"],
)
def test_a_run_keeps_its_tensors_on_the_gpu(particles, gpu, tmp_path, monkeypatch, star, options):
    maps, folder = particles
    expected = small_sets.score(tmp_path / "cpu", folder / star, maps, threads=1, **options)
    seen = []
    monkeypatch.setattr(pretend_cuda, "witness", seen.append)
    settings = {**small_sets.SEARCH, **options, "threads": 1}
    gpu("likelihood", particles=[str(folder / star)], structures=maps, out=str(tmp_path / "gpu"), **settings)
    found = load_results(tmp_path / "gpu")
    # The kernel's stand-in sums in another order and in other blocks.
    close = 0.01 if options["search"] == "exhaustive" else 1e-6
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=close, err_msg=name)
    assert len(seen) > 1000


def test_stored_coefficients_reach_the_gpu(particles, gpu, tmp_path):
    maps, folder = particles
    results = []
    for where, run in (("cpu", engine.run), ("gpu", gpu)):
        made, out = tmp_path / where / "coefficients", tmp_path / where / "scores"
        run("particles", particles=[str(folder / "particles.star")], out=str(made), threads=1, **STORED)
        star = [str(made / "particles.star")]
        run("likelihood", particles=star, structures=maps, out=str(out), threads=1, **{**small_sets.SEARCH, **STORED})
        results.append(load_results(out))
    np.testing.assert_allclose(results[0].integrated, results[1].integrated, rtol=0, atol=1e-6)


def _pretended(*shape):
    with PretendCuda():
        return torch.ones(*shape, device="cuda:0")


def test_the_rules_of_the_pretended_gpu():
    on_gpu, on_cpu = _pretended(3, 2), torch.ones(3, 2)
    assert on_gpu.is_cuda and on_gpu.device == DEVICE and not on_cpu.is_cuda
    assert isinstance(on_gpu.sum(dim=0), PretendTensor) and isinstance(on_gpu.max(dim=1).values, PretendTensor)
    assert not isinstance(on_gpu.cpu(), PretendTensor)
    assert isinstance(on_gpu * torch.tensor(2.0), PretendTensor)  # CUDA takes numbers from the CPU
    assert isinstance(on_gpu[torch.tensor([0, 2])], PretendTensor)  # and indices
    on_cpu[:2] = on_gpu[:2]
    index = _pretended(2).long()
    for mixed in (
        lambda: on_gpu + on_cpu,
        lambda: torch.cat([on_gpu, on_cpu]),
        lambda: torch.mul(on_gpu, 2.0, out=on_cpu),
        lambda: on_gpu.index_select(0, torch.tensor([1])),
        lambda: on_cpu[index],
        lambda: on_cpu.__setitem__(index, 1.0),
        lambda: on_gpu.__setitem__(index, torch.ones(2, 2)),
    ):
        with pytest.raises(RuntimeError):
            mixed()
    for conversion in (on_gpu.numpy, lambda: np.asarray(on_gpu)):
        with pytest.raises(TypeError, match="convert"):
            conversion()
