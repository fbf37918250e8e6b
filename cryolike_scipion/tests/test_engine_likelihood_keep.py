"""What ``--keep`` stores of the grid of an exhaustive search."""

import numpy as np
import pytest

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

from .likelihood_runs import COUNT, command, run, run_without_report
from .small_sets import PIXEL


@pytest.fixture(scope="module")
def quick(small, tmp_path_factory):
    """The exhaustive result with which runs that keep more are compared."""
    return run_without_report(small, tmp_path_factory.mktemp("quick"), search="exhaustive")


def _kept(small, out, keep):
    results = run(small, out, keep=keep, search="exhaustive")
    return results, *(results.extras[f"keep_{what}_002"].values if f"keep_{what}_002" in results.extras else None
                      for what in ("value", "position"))  # fmt: skip


def test_what_is_kept_agrees_with_the_full_tensor(small, quick, tmp_path, no_report):
    results, full, position = _kept(small, tmp_path / "full", "full")
    views, shifts, psi = (len(results.grids[name].values) for name in ("views_002", "shift", "inplane"))
    assert position is None and full.shape == (COUNT, views, shifts, psi)
    assert np.abs(full).max() <= 1.0 and np.array_equal(results.integrated, quick.integrated)
    for keep, over in (("template", (2, 3)), ("shift", (1, 3)), ("rotation", (1, 2)), ("shift-rotation", (1,))):
        _, value, position = _kept(small, tmp_path / keep, keep)
        assert np.allclose(value, full.max(axis=over), atol=1e-6), keep
        left = [axis for axis in (1, 2, 3) if axis not in over]
        flat = np.transpose(full, (0, *left, *over)).reshape(*value.shape, -1)
        at_best = np.take_along_axis(flat, position[..., None].astype(int), axis=-1)[..., 0]
        assert np.allclose(at_best, value, atol=1e-6), keep


def test_the_best_pose_is_near_the_best_of_the_full_tensor(small, tmp_path, no_report):
    results, full, _ = _kept(small, tmp_path, "full")
    grids = {name: results.grids[name].values for name in ("views_002", "shift", "inplane")}
    shown = np.flatnonzero(results.best_structure == 2)
    assert len(shown) > 3
    for m in shown:
        view, shift, psi = np.unravel_index(full[m].argmax(), full[m].shape)
        rotation = matrix_from_euler(*grids["views_002"][view], grids["inplane"][psi])
        refined = matrix_from_euler(results.rot[1, m], results.tilt[1, m], results.psi[1, m])
        assert distance_deg(refined[None], rotation[None])[0] < 25.0
        assert abs(results.origin_x[1, m] - grids["shift"][shift, 0]) < PIXEL
        assert abs(results.origin_y[1, m] - grids["shift"][shift, 1]) < PIXEL
        assert results.cc[1, m] > full[m].max() - 0.02


def test_a_tensor_beyond_the_memory_bound_is_refused(small, tmp_path, no_report, capsys):
    """About 1,700 views, 200 shifts and 64 angles of 14 images: 2 GiB in full, and little by rotation."""
    fine = ("--search", "exhaustive", "--memory", "0.3", "--angular-step", "6", "--shift-step", "1")
    assert command(small, tmp_path, *fine, "--keep", "full") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--memory" in error and "full" in error
    assert not (tmp_path / "scores.h5").exists() and not (tmp_path / "particles.star").exists()
    assert command(small, tmp_path, "--search", "exhaustive", "--memory", "0.3", "--keep", "rotation") == 0


def test_a_tensor_is_of_an_exhaustive_search(small, tmp_path):
    for search in ("hierarchical", "local"):
        with pytest.raises(InputError, match="exhaustive"):
            run(small, tmp_path, keep="template", search=search)
