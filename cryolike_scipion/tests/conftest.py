"""The Scipion environment of the tests; it has to be set before the first ``import pyworkflow``."""

import importlib.util
import os
import shutil
import sys
import tempfile

import pytest

from .helpers import REQUIRE_ALL
from .scipion_tests import can_run

_HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
_HAS_SCIPION = importlib.util.find_spec("pyworkflow") is not None

# Two cores are enough for the small cases, and more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

if _HAS_SCIPION:
    _HOME = tempfile.mkdtemp(prefix="cryolike-scipion-")
    with open(os.path.join(_HOME, "hosts.conf"), "w") as _stream:
        _stream.write(_HOSTS)
    os.environ.update(
        {
            "SCIPION_DOMAIN": "pwem",
            "SCIPION_HOSTS": os.path.join(_HOME, "hosts.conf"),
            "SCIPION_PYTHON": sys.executable,
            "SCIPION_HOME": _HOME,
            "SCIPION_USER_DATA": os.path.join(_HOME, "data"),
            "SCIPION_TEST_NOSYNC": "True",
            "SCIPION_NOTIFY": "False",
        }
    )


def pytest_unconfigure():
    """Remove the Scipion home with the projects of this run."""
    if _HAS_SCIPION:
        shutil.rmtree(_HOME, ignore_errors=True)


def pytest_ignore_collect(collection_path):
    """Leave out the files that cannot run in this Python, unless all are wanted."""
    left_out = (
        collection_path.name.startswith("test_") and collection_path.suffix == ".py" and not can_run(collection_path.name)
    )
    return True if left_out and not os.environ.get(REQUIRE_ALL) else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With REQUIRE_ALL a skipped test fails."""
    outcome = yield
    _refuse_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """With REQUIRE_ALL a file that is skipped as a whole fails."""
    outcome = yield
    _refuse_skip(outcome.get_result())


def _refuse_skip(report):
    """Make a skip a failure, unless the development data are missing, which are not part of the project."""
    reason = str(report.longrepr)
    excused = hasattr(report, "wasxfail") or "development data" in reason
    if report.skipped and not excused and os.environ.get(REQUIRE_ALL):
        report.outcome = "failed"
        report.longrepr = f"skipped, but {REQUIRE_ALL} is set: {reason}"


@pytest.fixture(autouse=True)
def _no_reports_of_inputs(request, monkeypatch):
    """Templates and converted particles without their reports in tests of the engine, except those that look at them."""
    name = request.module.__name__.rpartition(".")[2]
    if name.startswith("test_engine_") and name != "test_engine_gallery":
        from cryolike_scipion.engine import particles_run, templates_run

        monkeypatch.setattr(templates_run, "write_template_report", lambda *_: None)
        monkeypatch.setattr(particles_run, "write_particle_report", lambda *_: None)


@pytest.fixture
def no_report(monkeypatch):
    """Runs of ``likelihood`` without their report, whose plots take longer than small runs."""
    from cryolike_scipion.engine import likelihood_run

    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Particles of two structures, and the structures (`likelihood_runs.make_small`)."""
    from .likelihood_runs import make_small

    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def quick(small, tmp_path_factory):
    """The result with which changed runs are compared."""
    from .likelihood_runs import run_without_report

    return run_without_report(small, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def project(request):
    """A Scipion project for the tests of a file, which is the working directory meanwhile."""
    from .node_project import NodeProject

    project = NodeProject(request.module.__name__.rpartition("test_scipion_")[2])
    yield project
    project.close()


@pytest.fixture(scope="module")
def imported(project):
    """Twenty particles of a RELION STAR file without poses, of `node_project.NodeProject.data`."""
    return project.particles()


@pytest.fixture(scope="module")
def volumes(project):
    """The two maps of these particles in a set."""
    return project.volumes()
