"""How the tests are run: pytest and ``scipion tests`` find the same ones, and none is skipped where all are wanted."""

import os
import re
import subprocess
import sys
import unittest
from collections import Counter

import pytest

import cryolike_scipion.tests
from cryolike_scipion.tests import scipion_tests

from .helpers import REPOSITORY, REQUIRE_ALL

FOLDER = scipion_tests.FOLDER
SKIPPING = """
import pytest
@pytest.mark.skip(reason="marked")
def test_marked(): pass
@pytest.mark.skipif(True, reason="condition")
def test_condition(): pass
def test_called(): pytest.skip("called")
@pytest.fixture
def missing(): pytest.skip("in a fixture")
def test_fixture(missing): pass
def test_import(): pytest.importorskip("no_such_module")
def test_runs(): pass
"""
HOOKS = "from cryolike_scipion.tests.conftest import pytest_make_collect_report, pytest_runtest_makereport\n"
TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.parametrize("n", [1, 2])
def test_half(n): assert n == 1
def test_left_out(): pytest.skip("not here")
"""


def run_tests(folder, **environ):
    """Run pytest in a folder; return Counter of the outcomes, and what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, env=dict(os.environ, PYTHONPATH=str(REPOSITORY), **environ), stdout=subprocess.PIPE)
    said = done.stdout.decode()
    return Counter(
        {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", said.splitlines()[-1])}
    ), said


def test_no_test_is_skipped_where_all_are_wanted(tmp_path):
    (tmp_path / "conftest.py").write_text(HOOKS)
    (tmp_path / "test_some.py").write_text(SKIPPING)
    (tmp_path / "test_file.py").write_text('import pytest\npytest.importorskip("no_such_module")\ndef test_it(): pass\n')
    found, said = run_tests(tmp_path, **{REQUIRE_ALL: "1"})
    assert found == {"error": 1}, said  # a file that is skipped as a whole stops them all
    found, said = run_tests(tmp_path / "test_some.py", **{REQUIRE_ALL: "1"})
    assert found == {"failed": 2, "error": 3, "passed": 1}, said
    found, said = run_tests(tmp_path, **{REQUIRE_ALL: ""})
    assert found == {"skipped": 6, "passed": 1}, said


def test_the_script_for_machines_asks_for_all():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert f"{REQUIRE_ALL}=1" in script and "make test" in script


def test_unittest_and_pytest_find_the_same_tests(request):
    """In every file of this session: in a run of all tests in all."""
    suites, ours = [unittest.defaultTestLoader.discover(str(FOLDER), "test*.py", str(REPOSITORY))], []
    while suites:
        each = suites.pop()
        if isinstance(each, unittest.TestSuite):
            suites.extend(each)
        else:
            ours.append(tuple(each.id().rsplit(".", 2)))
    assert len(ours) == len(set(ours)) > 500
    assert {module for module, _, _ in ours} == {"cryolike_scipion.tests"}
    theirs = {(scipion_tests.class_name(item.path), item.originalname) for item in request.session.items}
    files = {kind for kind, _ in theirs}
    assert "TestRunningTests" in files
    assert {(kind, test) for _, kind, test in ours if kind in files} == theirs


@pytest.fixture
def some(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    return scipion_tests.class_of(tmp_path / "test_some.py", __name__)


def test_unittest_says_what_pytest_says(some):
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(some).run(result)
    assert result.testsRun == 4
    assert [case._testMethodName for case, _ in result.failures] == ["test_bad", "test_half"] and not result.errors
    assert "assert 1 == 2" in result.failures[0][1]
    assert [case._testMethodName for case, _ in result.skipped] == ["test_left_out"]


def test_a_single_test_runs_alone(some):
    result = unittest.TestResult()
    some("test_good").run(result)
    assert result.wasSuccessful() and list(some.outcomes) == ["test_good"]


def test_scipion_runs_a_class_by_its_name():
    name = "cryolike_scipion.tests.TestRunningTests.test_the_script_for_machines_asks_for_all"
    environ = dict(os.environ, PYTHONPATH=str(REPOSITORY))
    done = subprocess.run([sys.executable, "-m", "scipion", "tests", name], env=environ, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert "1 tests" in done.stdout.decode() + done.stderr.decode()


def test_there_is_no_class_without_a_file():
    with pytest.raises(AttributeError, match="TestNothing"):
        getattr(cryolike_scipion.tests, "TestNothing")  # noqa: B009
    assert not hasattr(cryolike_scipion.tests, "nothing")
