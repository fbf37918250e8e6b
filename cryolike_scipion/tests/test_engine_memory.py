"""``--memory`` bounds what a run holds beyond the imported packages, measured from outside."""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.memory import _group_limit, available_memory

from .process_memory import peak_resident, resident_of_all

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="no /proc/self/smaps_rollup on this system"
)

GIB = 2.0**30
BOX, PIXEL = 64, 3.0
ALLOWANCE = 0.05 * GIB  # what the allocators hold on to, and the report's figures

IMPORTS = "import json, sys, time, cryolike_scipion.engine.likelihood_run, matplotlib.backends.backend_agg"


def _peak(code=""):
    """Largest resident memory, bytes, of a process that imports the engine and runs `code`, with those that it forks."""
    script = f"{IMPORTS}\n{code}\ntime.sleep(0.1)"  # in which the end of the imports is seen
    peak = 0.0
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=errors, stderr=errors)
        while process.poll() is None:
            peak = max(peak, peak_resident(process.pid), resident_of_all(process.pid))
            time.sleep(0.02)
        errors.seek(0)
        assert process.returncode == 0, errors.read()
    return peak


@pytest.fixture(scope="module")
def empty():
    """Bytes of a process that has imported everything and done nothing."""
    return _peak()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    engine.run("simulate", count=12, box=BOX, pixel=PIXEL, snr=0.1, max_shift=2 * PIXEL, out=str(folder))
    return folder


@pytest.mark.parametrize("particles, structures", [(3, 1), (12, 2)])
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_a_run_stays_within_its_memory_bound(simulated, empty, tmp_path, bound, particles, structures):
    parameters = {
        "particles": [str(simulated / "particles.star")],
        "structures": [str(simulated / f"state_{k + 1}.cif") for k in range(structures)],
        "rows": f"1:{particles}",
        "angular_step": 7.5,
        "shift_step": PIXEL,
        "max_shift": 2 * PIXEL,
        "levels": 1,
        "threads": 2,
        "memory": bound,
        "out": str(tmp_path / "out"),
    }
    run = f"from cryolike_scipion import engine\nengine.run('likelihood', **json.loads({json.dumps(parameters)!r}))"
    used = _peak(run) - empty
    assert (tmp_path / "out" / "matrix.npy").exists()
    assert used <= bound * GIB + ALLOWANCE, f"{used / GIB:.3f} GiB"


def test_a_bound_too_small_for_the_templates_is_refused(simulated, tmp_path):
    parameters = {"particles": [str(simulated / "particles.star")], "structures": [str(simulated / "state_1.cif")]}
    with pytest.raises(InputError, match="memory"):
        engine.run("likelihood", **parameters, angular_step=7.5, max_shift=2 * PIXEL, memory=0.06, out=str(tmp_path / "out"))


def test_a_job_of_a_queue_has_no_more_memory_than_it_was_given(monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    free = available_memory()
    assert free > 2**27
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert available_memory() == 100 * 2**20
    for odd in ("0", "", "x"):  # 0: all of the node
        monkeypatch.setenv("SLURM_MEM_PER_NODE", odd)
        assert available_memory() == pytest.approx(free, rel=0.5)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "25")
    assert available_memory() == pytest.approx(free, rel=0.5), "of how many is not known"
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert available_memory() == 75 * 2**20


@pytest.mark.parametrize(
    "table, files, limit",
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "7000", "memory.max": "9000"}, 7000),
        ("0::/of/the/machine\n", {"memory.max": "5000"}, 5000),
        ("0::/../sibling\n", {"memory.max": "max"}, float("inf")),
        ("2:memory,x:/a:b\n0::/\n", {"memory/a:b/memory.limit_in_bytes": "40", "memory.max": "90"}, 40),
        ("3:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "40", "cpu/a/memory.limit_in_bytes": "3"}, float("inf")),
        (None, {"memory.max": "5000"}, float("inf")),
    ],
)
def test_limits_of_control_groups(tmp_path, table, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    if table is not None:
        (tmp_path / "table").write_text(table)
    assert _group_limit(tmp_path / "table", tmp_path) == limit
