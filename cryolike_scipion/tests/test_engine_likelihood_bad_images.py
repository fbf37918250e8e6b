"""Images that cannot be scored: they stop a run, or are flagged and keep their row and pose."""

import numpy as np
import pytest

from cryolike_scipion.engine.particles import read_particles

from .likelihood_runs import COUNT, QUICK, command, rows_of, with_images
from .small_sets import score

# mrcfile warns when it writes them.
pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")


def _bad_set(small, folder, value):
    """The particles with one bad image; returns the STAR file and the row that shows it."""

    def spoil(data):
        data[5] = value
        return data

    star = with_images(small, folder, spoil)
    return star, list(read_particles([star]).frame).index(5)


def test_a_bad_image_stops_the_run(small, tmp_path, no_report, capsys):
    star, row = _bad_set(small, tmp_path, np.nan)
    out = tmp_path / "out"
    status = command((star.parent, small[1]), out, "--batch-images", "3")
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(error) == 1
    assert "particles.mrcs" in error[0] and f"row {row + 1}" in error[0] and error[0].endswith(".")
    assert not any((out / name).exists() for name in ("particles.star", "scores.h5", "matrix.npy", "report.html"))


@pytest.mark.parametrize("value, name", [(np.nan, "nan"), (3.0, "constant"), (np.inf, "nan")])
def test_a_flagged_image_keeps_its_row_and_pose(small, quick, tmp_path, no_report, value, name):
    star, bad = _bad_set(small, tmp_path, value)
    results = score(tmp_path / "out", star, small[1], **QUICK, bad_images="flag")
    labels, rows = rows_of(tmp_path / "out" / "particles.star")
    before, wanted = rows_of(star)
    assert len(rows) == COUNT
    words = dict(zip(labels, rows[bad]))
    assert words["cryolikeStatus"] == name and words["rlnClassNumber"] == "0" and words["cryolikeBestStructure"] == "0"
    for label in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"):
        assert float(words[f"rln{label}"]) == pytest.approx(float(wanted[bad][before.index(f"rln{label}")]), abs=1e-6)
    for label in ("rlnMaxValueProbDistribution", "cryolikeStructurePosterior", "cryolikeLogLikelihood"):
        assert float(words[label]) == 0.0
    good = np.arange(COUNT) != bad
    assert (results.structure_posterior[:, bad] == 0).all() and (results.status[good] == 0).all()
    assert np.array_equal(results.best_structure[good], quick.best_structure[good])
    assert np.allclose(results.cc[:, good], quick.cc[:, good], atol=0.02)
