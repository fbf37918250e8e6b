"""The benchmark for GPUs where there is none: it says so, and its other parts run."""

import os
import subprocess
import sys

import pytest

from .helpers import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not installed with the package")


def run(*options):
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), *options], env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_without_a_gpu_nothing_is_measured():
    assert run() == "torch sees no GPU here: nothing was measured.\n"


def test_the_table_of_plain_torch():
    said = run("--device", "cpu", "--boxes", "32", "--shifts", "3", "--images", "2", "--step", "30", "--repeats", "1")
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| 32")]
    assert [row[1] for row in rows] == ["CryoLike's, written in torch", "ours, plain torch"]
    assert all(float(row[2]) > 0 for row in rows)
    assert float(rows[0][4]) == 1.0
    assert float(rows[1][-1].strip()) < 1e-3  # nat, against double precision
