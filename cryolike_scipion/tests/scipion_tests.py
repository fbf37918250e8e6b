"""The tests of pytest as ``scipion tests`` wants them: a class of unittest for each file, a method for each test in it.

The classes only run pytest and say what it found, so that both commands run the same tests in the same way.
"""

import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).resolve().parent
# What can run in a Python without the engine, such as Scipion's own, as its installer makes it.
SCIPION_HALF = ("test_scipion_", "test_plots", "test_architecture")


def has(module):
    """Whether a module is installed in this Python."""
    return importlib.util.find_spec(module) is not None


def can_run(name):
    """Whether the tests of a file can run in this Python: with the engine or without, with Scipion or without."""
    if name.startswith(("test_scipion_", "test_facility")) and not has("pyworkflow"):
        return False
    return name.startswith(SCIPION_HALF) or has("torch")


def test_files():
    """Return the files of tests that can run in this Python, by name."""
    return sorted(path for path in FOLDER.glob("test_*.py") if can_run(path.name))


def class_name(path):
    """Return the name of a file's class: ``test_scipion_forms.py`` becomes ``TestScipionForms``."""
    return "".join(word.capitalize() for word in path.stem.split("_"))


def functions_of(path):
    """Return the names of the tests in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]


class PytestFile(unittest.TestCase):
    """Tests of one file.  Those that are asked for run together, when the first of them is due."""

    path = None
    asked = outcomes = None

    def __init__(self, methodName="runTest"):
        super().__init__(methodName)
        if self.asked is not None:
            self.asked.add(methodName)

    def check(self):
        """Fail if pytest says that this test has failed, or that there was none."""
        kind = type(self)
        name = self._testMethodName
        if kind.outcomes is None or name not in kind.outcomes:
            kind.outcomes = run_pytest(self.path, kind.asked | {name})
        found = kind.outcomes.get(name, [("error", "pytest has not run it")])
        wrong = [text for outcome, text in found if outcome in ("failure", "error")]
        if wrong:
            self.fail("\n".join(wrong))
        if all(outcome == "skipped" for outcome, _ in found):
            self.skipTest(found[0][1])


def run_pytest(path, names):
    """Run some tests of a file; return test name to a list of (outcome, what pytest says), one for each set of values."""
    with tempfile.TemporaryDirectory(prefix="cryolike-tests-") as folder:
        report = os.path.join(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [f"{path}::{name}" for name in sorted(names)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        if not os.path.exists(report):
            said = f"pytest ended with {done.returncode} and without a report. Is it installed in this Python?"
            return {name: [("error", said)] for name in names}
        outcomes = {}
        for case in ElementTree.parse(report).iter("testcase"):
            kinds = [child for child in case if child.tag in ("failure", "error", "skipped")] or [None]
            for child in kinds:
                found = ("passed", "") if child is None else (child.tag, f"{child.get('message')}\n{child.text}")
                outcomes.setdefault(case.get("name").partition("[")[0], []).append(found)
        return outcomes


def class_of(path, module):
    """Return the class of a file, as if it were written in `module`."""
    methods = dict.fromkeys(functions_of(path), PytestFile.check)
    about = {
        "path": path,
        "asked": set(),
        "__module__": module,
        "__doc__": ast.get_docstring(ast.parse(path.read_text("utf-8"))),
    }
    return type(class_name(path), (PytestFile,), {**methods, **about})
