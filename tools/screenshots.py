"""Pictures of the plugin in a Scipion window, for the documents: made-up particles, a project, its forms and viewers.

Needs Xvfb, openbox and ImageMagick.  `make screenshots` writes the pictures into docs/images.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Name of the driver's picture: name in the documents.
SHOWN = {
    "project": "project",
    "project-methods": "project-methods",
    "form-ProtCryolikeGenerateTemplates-1": "form-templates",
    "form-ProtCryolikeConvertParticles-1": "form-particles",
    "form-ProtCryolikeLikelihood-1": "form-likelihood-input",
    "form-ProtCryolikeLikelihood-2": "form-likelihood-search",
    "form-ProtCryolikeSelect-1": "form-select",
    "wizard-mask": "wizard-mask",
    "wizard-resolution": "wizard-resolution",
    "wizard-symmetry": "wizard-symmetry",
    "viewer-templates-1": "templates-projections",
    "viewer-templates-2": "templates-views",
    "viewer-templates-3": "templates-power",
    "viewer-particles-1": "particles-before-after",
    "viewer-particles-2": "particles-ctf",
    "viewer-likelihood": "viewer-likelihood",
    "viewer-threshold": "likelihood-threshold",
    "viewer-populations-1": "likelihood-shares",
    "viewer-populations-3": "likelihood-differences",
    "viewer-populations-4": "likelihood-matrix",
    "viewer-classes-1": "likelihood-classes",
    "viewer-poses-1": "likelihood-views",
    "viewer-agreement-1": "likelihood-agreement",
    "viewer-particle-1": "particle-comparison",
    "viewer-landscape-1": "particle-landscape-views",
    "viewer-landscape-2": "particle-landscape-shifts",
    "viewer-ensemble-1": "ensemble-populations",
    "viewer-table": "table",
    "form-ProtCryolikeEnsemble-1": "form-ensemble",
    "form-ProtCryolikeImportParticles-1": "form-import",
}


def main() -> int:
    """Make the project and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder for the pictures")
    parser.add_argument("--particles", type=int, default=300, help="number of simulated particles")
    parser.add_argument("--keep", type=Path, help="also keep every picture in this folder")
    options = parser.parse_args()
    from cryolike_scipion.tests.gui_desktop import Desktop, drive, set_up_scipion
    from cryolike_scipion.tests.gui_project import make_project

    with tempfile.TemporaryDirectory(prefix="cryolike-screenshots-") as folder:
        set_up_scipion(folder)
        path = make_project(Path(folder), options.particles)
        pictures = options.keep or Path(folder) / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        with Desktop() as desktop:
            problems = drive(desktop, path, pictures)
        if problems:
            print(problems, file=sys.stderr)
            return 1
        options.out.mkdir(parents=True, exist_ok=True)
        for made, name in SHOWN.items():
            target = options.out / f"{name}.png"
            shutil.copyfile(pictures / f"{made}.png", target)
            subprocess.run(["convert", str(target), "-strip", "-colors", "128", f"PNG8:{target}"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
