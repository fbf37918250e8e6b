"""What is installed, and that documents, metadata and files agree with each other."""

import ast
import configparser
import email
import re
import subprocess
import sys
import zipfile

import pytest

from cryolike_scipion import __version__
from cryolike_scipion.constants import ENGINE_MODULES, ENGINE_REQUIREMENTS

from .helpers import REPOSITORY

pytestmark = pytest.mark.skipif(not (REPOSITORY / "setup.py").exists(), reason="installed, not a checkout")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as it would be installed: an open zip file."""
    folder = tmp_path_factory.mktemp("wheel")
    work = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, check=True,
                             capture_output=True).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, tracked):
        if (REPOSITORY / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes((REPOSITORY / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(work)], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def _metadata(wheel, name):
    found = next(path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(found).decode("utf-8")


def test_name_version_and_licence(wheel):
    metadata = email.message_from_string(_metadata(wheel, "METADATA"))
    assert metadata["Name"] == "scipion-em-cryolike" and metadata["Version"] == __version__
    assert "GPL-3" in metadata["License"] and metadata["Requires-Python"] == ">=3.8"
    assert "GNU GENERAL PUBLIC LICENSE" in (REPOSITORY / "LICENSE").read_text()
    assert f"## {__version__}" in (REPOSITORY / "CHANGES.md").read_text()


def test_the_engine_is_an_extra(wheel):
    requirements = email.message_from_string(_metadata(wheel, "METADATA")).get_all("Requires-Dist")
    engine = {line.split(";")[0].replace(" ", "") for line in requirements if "extra" in line}
    base = {re.split(r"[\s<>=;(]", line)[0] for line in requirements if "extra" not in line}
    assert engine == {line.replace(" ", "") for line in ENGINE_REQUIREMENTS}
    assert {"scipion-em", "scipion-pyworkflow", "tifffile", "biopython"} <= base and not base & {"torch", "finufft", "gemmi"}
    assert {re.split(r"[<>=]", line)[0] for line in ENGINE_REQUIREMENTS} == set(ENGINE_MODULES)


def test_entry_points(wheel):
    points = configparser.ConfigParser()
    points.read_string(_metadata(wheel, "entry_points.txt"))
    assert dict(points["pyworkflow.plugin"]) == {"cryolike_scipion": "cryolike_scipion"}
    assert dict(points["console_scripts"]) == {"cryolike-scipion": "cryolike_scipion.cli:main"}


def test_every_file_of_the_module_is_installed(wheel):
    package = REPOSITORY / "cryolike_scipion"
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert wanted <= set(wheel.namelist())
    assert "cryolike_scipion/protocols.conf" in wanted


@pytest.mark.parametrize("name", ["cli.py", "__main__.py", "parameter.py", "parameters.py", "constants.py", "__init__.py"])
def test_what_every_python_imports_is_python_3_8(name):
    source = (REPOSITORY / "cryolike_scipion" / name).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))


def test_the_command_line_page_is_up_to_date():
    run = subprocess.run([sys.executable, "tools/command_line_page.py", "--check"], cwd=REPOSITORY)
    assert run.returncode == 0, "run python tools/command_line_page.py"


def test_links_in_the_documents_lead_somewhere():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    assert len(pages) > 4
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_makefile_takes_the_pinned_torch():
    text = (REPOSITORY / "cryolike_scipion" / "constants.py").read_text()
    found = re.findall(r'^ *"(torch==[^"]*)",$', text, flags=re.MULTILINE)
    assert found == [ENGINE_REQUIREMENTS[0]]


def test_no_file_hides_a_target_of_the_makefile():
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):(?!=)", text, flags=re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY:(.*)", text, flags=re.MULTILINE)
    assert "proof" in targets and sorted(targets) == sorted(phony.split())
