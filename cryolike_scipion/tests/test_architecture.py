"""Imports point one way: Scipion's half never reaches the engine, and runs on Python 3.8 without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
NAME = PACKAGE.name
SCIPION_HALF = ("convert", "plots", "protocols", "viewers", "wizards")
SCIPION_FILES = ("__init__", "plugin", "environment", "constants", "parameter", "parameters", "objects", "bibtex", "workflow")
SCIPION_FILES += ("mask_room",)
ENGINE_ONLY = {"torch", "finufft", "gemmi", "tqdm"}
# From the right to the left: a package imports only what stands before it.
ORDER = ("constants", "objects", "convert", "plots", "protocols", "viewers", "wizards")


def _sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "tests":
            yield path, parts


def _imports(path, parts):
    """Yield the absolute names of the modules that a file imports, wherever in it."""
    package = (NAME,) + parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join(base + ((node.module,) if node.module else ()))
            yield module
            yield from (module + "." + alias.name for alias in node.names)


def _is_scipion_half(parts):
    return parts[0] in SCIPION_HALF + SCIPION_FILES


SCIPION_SOURCES = [(path, parts) for path, parts in _sources() if _is_scipion_half(parts)]
ENGINE_SOURCES = [(path, parts) for path, parts in _sources() if parts[0] == "engine"]


# A line to drag, and what is said in place of a plot.
ONLY_IN_WINDOWS = {"threshold_figure", "threshold_lines", "kept_text", "empty"}


def test_every_plot_of_a_viewer_is_on_a_page():
    plots = set()
    for path in (PACKAGE / "plots").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        plots |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}

    def used(paths):
        nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        return plots & (names | {node.id for node in nodes if isinstance(node, ast.Name)})

    shown = used((PACKAGE / "viewers").glob("*.py"))
    assert len(shown) > 15 and shown >= ONLY_IN_WINDOWS
    assert shown - used((PACKAGE / "engine").glob("*report*.py")) == ONLY_IN_WINDOWS


def test_every_file_belongs_somewhere():
    known = set(SCIPION_HALF) | set(SCIPION_FILES) | {"engine", "cli", "__main__", "logo"}
    assert {parts[0] for _, parts in _sources()} <= known
    assert len(SCIPION_SOURCES) > 15
    assert ENGINE_SOURCES


@pytest.mark.parametrize("path, parts", SCIPION_SOURCES, ids=lambda value: str(value)[-40:])
def test_scipion_half_imports_neither_the_engine_nor_its_packages(path, parts):
    for module in _imports(path, parts):
        assert module.split(".")[0] not in ENGINE_ONLY, module
        assert not module.startswith(NAME + ".engine"), module


@pytest.mark.parametrize("path, parts", SCIPION_SOURCES, ids=lambda value: str(value)[-40:])
def test_scipion_half_is_python_3_8(path, parts):
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))


@pytest.mark.parametrize("path, parts", SCIPION_SOURCES, ids=lambda value: str(value)[-40:])
def test_imports_point_one_way(path, parts):
    if parts[0] not in ORDER:
        return
    later = ORDER[ORDER.index(parts[0]) + 1 :]
    for module in _imports(path, parts):
        names = module.split(".")
        assert names[0] != NAME or len(names) < 2 or names[1] not in later, module


@pytest.mark.parametrize("path, parts", ENGINE_SOURCES, ids=lambda value: str(value)[-40:])
def test_engine_knows_nothing_of_scipion(path, parts):
    allowed = {"engine", "parameters", "plots", "__version__", "constants", "mask_room"}
    for module in _imports(path, parts):
        names = module.split(".")
        assert names[0] not in ("pyworkflow", "pwem", "relion"), module
        assert names[0] != NAME or len(names) < 2 or names[1] in allowed, module


@pytest.mark.parametrize(
    "path, parts",
    [item for item in SCIPION_SOURCES if item[1][0] == "protocols"],
    ids=lambda value: str(value)[-40:],
)
def test_protocols_do_no_mathematics(path, parts):
    assert "numpy" not in set(_imports(path, parts))


def test_the_package_imports_without_scipion_and_has_no_plugin_there():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pyworkflow', 'pwem'):\n"
        "            raise ModuleNotFoundError('no ' + name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        f"import {NAME}\n"
        f"assert not hasattr({NAME}, 'Plugin')\n"
        f"assert {NAME}.__version__\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_scipion_half_loads_no_engine_package():
    pytest.importorskip("pyworkflow")
    code = (
        f"import sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        f"import {NAME}\n{NAME}.Plugin\n"
        f"import {NAME}.protocols, {NAME}.viewers, {NAME}.objects\n"
        f"print(sorted(set(sys.modules) & {ENGINE_ONLY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert done.stdout.decode().split("\n")[-2] == "[]"
