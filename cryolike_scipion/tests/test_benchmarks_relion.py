"""End to end with RELION alone: it simulates, we score, it goes on from our STAR file (`make proof` is the large one)."""

import importlib
import sys

import numpy as np
import pytest

from cryolike_scipion.engine.particles import read_particles

from .helpers import REPOSITORY, program
from .likelihood_runs import run_without_report

FOLDER = REPOSITORY / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not installed with the package")
COUNT, BOX, LIMIT = 120, 24, 18.0
SEARCH = {"angular_step": 15.0, "levels": 1, "resolution": LIMIT, "max_shift": 40.0, "assigned_above": 0.5}


@pytest.fixture(scope="module")
def bench():
    """The benchmark's modules, which are scripts in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        before = set(sys.modules)
        yield importlib.import_module("beside_relion")
        for name in set(sys.modules) - before:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.fixture(scope="module")
def data(bench, tmp_path_factory):
    program("relion_project")
    return bench.simulate(tmp_path_factory.mktemp("relion"), COUNT, BOX, snr=1.0)


@pytest.fixture(scope="module")
def out(data):
    (data.folder / "input.star").write_bytes(data.particles.read_bytes())
    run_without_report((data.folder, [str(path) for path in data.maps]), data.folder / "ours", **SEARCH)
    return data.folder / "ours"


def test_relions_images_have_the_poses_we_find(bench, data, out):
    truth = read_particles([data.truth], root=data.folder)
    answer = bench.compare(read_particles([out / "particles.star"]), truth)
    assert answer.accuracy > 0.95 and answer.pose_error < 6 and answer.near > 0.95 and answer.shift_error < 0.3
    assert bench.compare(truth, truth) == bench.Answer(1.0, 0.0, 1.0, 0.0)


def test_half_maps_from_our_poses_are_as_good_as_from_the_true_ones(bench, data, out):
    found = bench.proof(data, out / "particles.star", None)
    # With 30 particles a half one map's resolution varies by some 15 % by itself; `make proof` asks each for 5 %.
    assert sum(found.ours) <= 1.1 * sum(found.truth), found
    assert max(found.truth) < 30


def test_refine_goes_on_from_our_classes(bench, data, out):
    assert bench.learned_its_own(bench.go_on(data, out))


def test_wrong_poses_do_not_pass(bench, data, out):
    """The measure itself: random poses give no resolution, and the table tells."""
    truth = read_particles([data.truth], root=data.folder)
    turned = np.random.default_rng(0).permutation(len(truth))
    wrong = data.folder / "wrong.star"
    columns = {f"rlnAngle{name.capitalize()}": getattr(truth, name)[turned] for name in ("rot", "tilt", "psi")}
    bench.write_particles(wrong, truth, columns)
    found = bench.proof(data, wrong, None)
    assert not found.holds and min(found.ours) > 1.2 * max(found.truth)
    frequency, correlation = np.arange(5) / 10, np.array([1, 0.9, 0.5, 0.1, 0.0])
    assert bench.resolution(frequency, correlation, 0.5) == pytest.approx(5.0)
    assert bench.resolution(frequency, correlation, 0.3) == pytest.approx(4.0)
    assert bench.resolution(frequency, np.ones(5)) == pytest.approx(2.5)


def test_what_was_not_measured_or_does_not_hold_is_no_success(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "missing_programs", lambda: ["relion_refine"])
    for options, status in (([], 2), (["--skip-missing"], 0)):
        monkeypatch.setattr(sys, "argv", ["beside_relion.py", *options])
        assert bench.main() == status
        assert "not installed: relion_refine; nothing was measured" in capsys.readouterr().out
    assert bench.learned_its_own([18.0, 36.0, 18.0, 36.0])
    assert not bench.learned_its_own([18.0, 36.0, 36.0, 18.0]) and not bench.learned_its_own([35.0, 36.0, 18.0, 36.0])
