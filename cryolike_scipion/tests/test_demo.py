"""``make demo`` in small, and its comparison with the truth."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from .helpers import REPOSITORY

pytestmark = pytest.mark.skipif(not (REPOSITORY / "tools").is_dir(), reason="installed, not a checkout")


def _demo(*arguments):
    command = [sys.executable, str(REPOSITORY / "tools" / "demo.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_the_demo_finds_structures_and_poses_and_says_where_everything_is(tmp_path):
    run = _demo("--out", tmp_path / "demo", "--count", "8", "--threads", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    lines = dict(line.strip().split("   ", 1) for line in run.stdout.splitlines() if "   " in line.strip())
    assert float(lines["structure accuracy"].split()[0]) >= 75
    assert float(lines["pose error, median"].split("°")[0]) < 12
    assert float(lines["shift error, median"].split()[0]) < 1
    for name in ("Scipion project", "STAR file", "report", "picture"):
        assert Path(lines[name].strip()).exists(), name
    assert "likelihood: 100% (" in run.stdout


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("x")
    run = _demo("--out", tmp_path)
    assert run.returncode != 0 and "something else" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.fixture
def check(monkeypatch):
    """The module tools/demo_check.py."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import demo_check

    return demo_check


def test_errors_are_measured_against_the_truth(check):
    zero = np.zeros(4)
    truth = SimpleNamespace(
        rot=zero, tilt=zero + 40, psi=zero, origin_x=zero, origin_y=zero, class_number=np.array([1, 1, 2, 2]),
        optics=[SimpleNamespace(pixel_size=2.0)], optics_index=np.zeros(4, dtype=int),
    )  # fmt: skip
    answer = check.Answer(
        np.array([1, 2, 2, 2]), np.array([0.0, 90.0, 180.0, 10.0]), zero + 40, zero, zero + 4.0, zero, zero + 0.9
    )
    angle, shift = check.pose_errors(truth, answer, "C4")
    assert angle[:3] == pytest.approx(0, abs=1e-6) and angle[3] == pytest.approx(10)
    assert shift == pytest.approx(2.0)
    data = SimpleNamespace(structures=[Path("a.mrc"), Path("b.mrc")], truth=truth, truth_kind="truth")
    text = check.compare(data, answer, "C4")
    assert "accuracy      75.0 %" in text and "100.0 % within 15°" in text and "2.00 pixels" in text


def test_data_are_found_beside_the_star_file(check, tmp_path):
    from cryolike_scipion import engine

    engine.run("simulate", count=3, box=16, pixel=9.0, out=str(tmp_path))
    (tmp_path / "truth.star").rename(tmp_path / "particles_truth.star")
    for given in (tmp_path, tmp_path / "particles.star"):
        data = check.find_data(given)
        assert [path.name for path in data.structures] == ["state_1.cif", "state_2.cif"]
        assert data.truth_kind == "truth" and len(data.particles) == len(data.truth) == 3
    (tmp_path / "other.star").write_text("x")
    with pytest.raises(SystemExit, match="2 STAR files"):
        check.find_data(tmp_path)
    with pytest.raises(SystemExit, match="does not exist"):
        check.find_data(tmp_path / "nowhere")
