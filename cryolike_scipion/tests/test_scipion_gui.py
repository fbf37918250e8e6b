"""A user's afternoon in Scipion's window, under Xvfb: every form, wizard and viewer, and every button of them.

The pictures stay in the folder that CRYOLIKE_SCREENSHOTS names, or else in pytest's temporary folder.
"""

import os
from pathlib import Path

import pytest

from .gui_desktop import Desktop, drive
from .gui_project import make_project
from .helpers import program

EXPECTED = (
    "project",
    "project-methods",
    "cite-ProtCryolikeImportParticles",
    "advanced-ProtCryolikeLikelihood-4",
    "form-ProtCryolikeLikelihood-4",
    "wizard-mask",
    "wizard-resolution",
    "wizard-symmetry",
    "wizard-threshold",
    "viewer-templates-4",
    "viewer-particles-2",
    "viewer-likelihood",
    "viewer-populations-4",
    "viewer-classes-1",
    "viewer-poses-4",
    "viewer-agreement-1",
    "viewer-landscape-2",
    "viewer-threshold",
    "viewer-ensemble-1",
    "viewer-table",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("gui"), 24, resolution=30.0, levels=0)


def test_every_window_opens_and_every_button_works(project, tmp_path):
    for name in ("Xvfb", "openbox", "import", "xdotool"):
        program(name)
    pictures = Path(os.environ.get("CRYOLIKE_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    with Desktop() as desktop:
        problems = drive(desktop, project, pictures)
    assert problems == ""
    for name in EXPECTED:
        assert (pictures / f"{name}.png").stat().st_size > 3000, name
