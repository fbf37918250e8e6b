"""The verb ``likelihood``: particles against structures, by chunks that survive an interruption."""

from __future__ import annotations

import logging
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from .. import __version__
from .agreement import add_agreement
from .allocator import keep_freed_memory
from .atomic import atomic_path
from .best_poses import BEST_POSES, no_best_poses, poses_to_keep, put_best_poses
from .chunks import ChunkStore, Manifest
from .contrast import inverted_share
from .errors import InputError
from .exhaustive import BlockSizes
from .fingerprint import fingerprint, particles_identity
from .image_stacks import OK, STATUS_NAMES
from .learning import learn_noise, learn_prior
from .likelihood import ScalePrior
from .likelihood_chunk import STAGES, Scoring, forked, score_chunk
from .likelihood_setup import Setup, prepare_run, with_noise
from .memory import Budget, budget
from .noise_choice import shared_from
from .noise_spectrum import NoiseModel
from .optima import KEEP, tensor_bytes
from .own_output import refuse_overwriting
from .pose_prior_choice import choose_pose_priors
from .pose_search import StructureSearch
from .processes import process_count
from .progress import Progress
from .report_run import REPORT, or_warn, title_of, write_pictures, write_report
from .resample import density_on_grid
from .result_files import EXPORTS, refuse_results, remove_results, write_particle_files
from .results import Quantity, Results
from .shared_scale import SCALE_FILE, read_scale, scale_conditions, write_scale
from .shared_views import write_views

__all__ = ["run"]

logger = logging.getLogger(__name__)

# Parameters that say where and how fast, not what.
_FREE = frozenset(
    {
        "out",
        "device",
        "threads",
        "memory",
        "batch_images",
        "batch_templates",
        "restart",
        "rows",
        "particles",
        "structures",
        "root",
        "shared_by",
        "learn_only",
        "no_report",
        "scale_from",  # what is taken from there counts
        "noise_from",
        *EXPORTS,
    }
)
_INVERTED = 0.7  # share of inverted particles that raises a warning


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Score particles and write ``particles.star``, ``matrix.npy``, ``scores.h5``, ``structures/`` and ``report.html``.

    Parameters
    ----------
    parameters : dict
        Completed parameters of the verb ``likelihood``.
    progress : Progress
        Counts particles times structures.

    Raises
    ------
    InputError
        If particles or structures cannot be used, or an image is bad and ``bad_images`` is "stop".
    """
    out = Path(parameters["out"])
    refuse_results(out, [*parameters["particles"], *parameters["structures"]])
    refuse_overwriting(out / "structures", ("[0-9][0-9][0-9].mrc",), parameters["structures"])
    if parameters["scale_from"] is not None:
        refuse_overwriting(out, (SCALE_FILE,), [Path(parameters["scale_from"]) / SCALE_FILE])
    setup = prepare_run(parameters, parameters["device"])
    _describe(setup)
    limits = budget(parameters, setup)
    keep_freed_memory(int(min(2**28, 0.1 * limits.total / process_count(setup.device))))
    _refuse_large_tensor(parameters["keep"], setup, limits)
    # Spectra that are estimated here are the manifest's.
    fixed = setup.settings if shared_from(parameters) is not None else replace(setup.settings, noise=None)
    decides = {
        "engine": __version__,
        "parameters": {key: value for key, value in parameters.items() if key not in _FREE},
        "particles": particles_identity(setup.particles),
        "structures": [vars(entry) | {"source": ""} for entry in setup.entries],
        "polar": fixed.plain(),
    }
    decides |= _views(setup)
    given_scale = None
    if parameters["scale_from"] is not None:
        conditions = scale_conditions(setup.entries, setup.settings)
        given_scale = read_scale(parameters["scale_from"], parameters["scale"], setup.particles.optics, conditions)
        decides["scale"] = given_scale
    boundaries = list(range(0, len(setup.particles), limits.chunk)) + [len(setup.particles)]
    with Manifest.open(out, decides, boundaries, versions=_versions(), restart=parameters["restart"]) as manifest:
        scoring = _scoring(setup, manifest, parameters, limits, progress, given_scale)
        if parameters["learn_only"]:
            logger.info("the contrast prior is learned: %s", out)
            return
        results = _score(scoring, manifest, parameters, progress)
        _write(out, scoring.setup, results, parameters)
        manifest.finish()
    _conclude(out, results)


def _scoring(
    setup: Setup,
    manifest: Manifest,
    parameters: dict[str, Any],
    limits: Budget,
    progress: Progress,
    given_scale: dict[str, Any] | None,
) -> Scoring:
    """How particles are scored, with scale prior and noise spectra: given ones, the manifest's, or such as are learned now."""
    known = manifest.scale_prior
    if known is not None and "noise" in known:
        setup = with_noise(setup, NoiseModel.from_plain(known["noise"]))
    scoring = _with_searches(setup, parameters, limits)
    if known is None:
        learned = given_scale
        if learned is None:
            _check_contrast(scoring)
            if setup.settings.noise is not None and shared_from(parameters) is None:
                setup = with_noise(setup, learn_noise(scoring, parameters, progress))
                scoring = _with_searches(setup, parameters, limits)
            learned = learn_prior(scoring, parameters, progress)
        if setup.settings.noise is not None:
            learned = learned | {"noise": setup.settings.noise.plain()}
        manifest.set_scale_prior(learned | {"blocks": [scoring.blocks.images, scoring.blocks.views]})
    else:  # which rows are sampled depends on the blocks
        scoring = replace(scoring, blocks=BlockSizes(*known["blocks"]))
    if setup.input_views is not None:
        write_views(manifest.out, setup.input_views)
    prior = manifest.scale_prior or {}
    write_scale(manifest.out, prior, setup.particles.optics, scale_conditions(setup.entries, setup.settings))
    return replace(scoring, priors={int(g): ScalePrior(**values) for g, values in prior["groups"].items()})


def _with_searches(setup: Setup, parameters: dict[str, Any], limits: Budget) -> Scoring:
    """How particles are scored, but for the scale prior."""
    kept = poses_to_keep(parameters["best_poses"], len(setup.structures), len(setup.particles), limits.total)
    pose_priors = choose_pose_priors(setup, parameters)
    searches = [
        StructureSearch(
            k, setup.bands, levels, setup.division, setup.near, setup.n_inplane, setup.ring_ctf,
            limits.fine / len(setup.structures), kept, pose_priors[k],
        )
        for k, levels in enumerate(setup.levels)
    ]  # fmt: skip
    blocks = BlockSizes(parameters["batch_images"], parameters["batch_templates"])
    return Scoring(setup, searches, {}, blocks, limits.piece, parameters["keep"], kept)


def _score(scoring: Scoring, manifest: Manifest, parameters: dict[str, Any], progress: Progress) -> Results:
    setup = scoring.setup
    store = ChunkStore(manifest)
    if store.missing():  # what an earlier run left must not be taken for this one's result
        remove_results(manifest.out)
    count = len(setup.structures)
    missing = set(store.missing())
    finished = sum(len(r) for i, r in enumerate(manifest.ranges) if i not in missing)
    count *= STAGES
    progress.start(len(setup.particles) * count, "likelihood", "steps", finished * count)
    parts, best_poses = [], no_best_poses(scoring.keep_poses, len(setup.structures), len(setup.particles))
    if missing:
        with forked(scoring) as ready:
            for i in sorted(missing):
                store.write(i, score_chunk(ready, np.asarray(manifest.ranges[i]), progress.update))
    for i, rows in enumerate(manifest.ranges):
        part = store.read(i)
        put_best_poses(best_poses, rows, part.pop("best_poses"))
        parts.append(part)
    progress.close()
    results = Results.from_chunks(setup.entries, parts, parameters["priors"], setup.particles.optics_index)
    results.identify(setup.particles)
    optics = [[group.name, group.pixel_size] for group in setup.particles.optics]
    scale_prior = {name: value for name, value in (manifest.scale_prior or {}).items() if name != "noise"} | {"optics": optics}
    results.parameters = parameters | {"scale_prior": scale_prior, "polar": setup.settings.plain()}
    results.parameters |= _views(setup)
    results.versions = manifest.versions
    _grids(results, setup)
    if scoring.keep_poses:
        results.extras[BEST_POSES] = best_poses
    results.extras["integrated_change"] = Quantity(
        np.concatenate([p["integrated_change"] for p in parts], axis=1),
        "nat",
        "change of the integrated log-likelihood by the last level of sampling: an estimate of its error "
        "[structures × particles]",
    )
    results.extras["integrated_error"] = Quantity(
        np.concatenate([p["integrated_error"] for p in parts], axis=1),
        "nat",
        "standard error of the integrated log-likelihood from poses that were not scored, or not finely "
        "[structures × particles]",
    )
    for name in sorted({name for p in parts for name in p if name.startswith("keep_")}):
        results.extras[name] = Quantity(
            np.concatenate([p[name] for p in parts]), "1", _meaning_of_kept(parameters["keep"], "value" in name)
        )
    return results


def _views(setup: Setup) -> dict[str, str]:
    """Which input poses the prior over views is of; nothing where it is of none."""
    return {} if setup.input_views is None else {"input_views": fingerprint({"poses": setup.input_views.tolist()})}


def _check_contrast(scoring: Scoring) -> None:
    """Warn where most of a few particles fit better with inverted contrast."""
    setup = scoring.setup
    if setup.search in ("local", "fixed"):
        return
    share = inverted_share(setup, scoring.searches[0])
    if share is not None and share > _INVERTED:
        logger.warning(
            "%.0f %% of the particles looked at fit %s better with inverted contrast: try %s",
            100 * share,
            setup.entries[0].label,
            "without --invert" if setup.settings.images.invert else "--invert",
        )


def _grids(results: Results, setup: Setup) -> None:
    grids = results.grids
    grids["shift"] = Quantity(setup.shifts.origins, "angstrom", "origins (x, y) of the first grid [shifts × 2]")
    psi = 360.0 * np.arange(setup.n_inplane) / setup.n_inplane
    grids["inplane"] = Quantity(psi, "degree", "in-plane angles psi of the first grid")
    for k, table in enumerate(setup.tables, start=1):
        views = np.stack([table.rot_deg, table.tilt_deg], axis=1)
        grids[f"views_{k:03d}"] = Quantity(views, "degree", f"rot and tilt of the views of structure {k} [views × 2]")
        grids[f"view_weights_{k:03d}"] = Quantity(table.weights, "1", "prior of each view; sums to 1")
    noise = setup.settings.noise
    if noise is not None:
        frequency = np.linspace(0.0, noise.top, 101)
        grids["noise_frequency"] = Quantity(frequency, "1/angstrom", "frequencies of noise_power")
        power = np.stack([noise.power(g, frequency) for g in range(len(noise.spectra))])
        grids["noise_power"] = Quantity(power, "1", "power of the noise, mean 1 [optics groups × frequencies]")
        if noise.micrographs is not None:
            which = noise.micrographs.of_particle + 1
            grids["noise_micrograph"] = Quantity(
                which, "1", "row of noise_ratio (from 1) of each particle's micrograph; 0: none"
            )
            ratio = noise.micrograph_ratios(frequency)
            grids["noise_ratio"] = Quantity(
                ratio, "1", "power of micrographs' noise over their group's [micrographs × frequencies]"
            )
    grids["radii"] = Quantity(setup.settings.grid.radii, "1/angstrom", "radial nodes of the polar grid")
    grids["radial_weights"] = Quantity(setup.settings.grid.weights, "1/angstrom²", "quadrature weights of the radial nodes")


def _meaning_of_kept(keep: str, value: bool) -> str:
    left = (
        "views, shifts, in-plane angles"
        if not KEEP[keep]
        else ", ".join(
            name for axis, name in (("v", "views"), ("o", "shifts"), ("g", "in-plane angles")) if axis not in KEEP[keep]
        )
    )
    over = {"v": "views", "o": "shifts", "g": "in-plane angles"}
    best = f"best over {', '.join(over[a] for a in over if a in KEEP[keep])}" if KEEP[keep] else "all"
    what = "cross-correlation" if value else "flat index of the best"
    return f"{what} of one structure, {best} [particles, {left}]"


def _write(out: Path, setup: Setup, results: Results, parameters: dict[str, Any]) -> None:
    (out / "structures").mkdir(exist_ok=True)
    group = setup.particles.optics[0]
    for k, structure in enumerate(setup.structures, start=1):
        with atomic_path(out / "structures" / f"{k:03d}.mrc") as temporary, mrcfile.new(temporary, overwrite=True) as file:
            file.set_data(density_on_grid(structure, group.box, group.pixel_size))
            file.voxel_size = group.pixel_size
    add_agreement(results, setup.particles)
    results.save(out)
    write_particle_files(out, results, setup.particles, parameters)
    if parameters["no_report"]:  # its pictures are needed by the report of the whole
        write_pictures(results, out, setup)
    else:
        or_warn("the report", write_report, results, out / REPORT, title_of(out), setup)


def _refuse_large_tensor(keep: str, setup: Setup, limits: Budget) -> None:
    if keep == "pose":
        return
    if setup.search != "exhaustive":
        raise InputError(f"--keep {keep} needs the grid of an exhaustive search", remedy="Use --search exhaustive.")
    size = sum(
        tensor_bytes(keep, len(setup.particles), len(table), len(setup.shifts), setup.n_inplane) for table in setup.tables
    )
    if size > limits.total:
        raise InputError(
            f"--keep {keep} would hold {size / 2**30:.1f} GiB, more than the memory bound of {limits.total / 2**30:.1f} GiB",
            remedy="Keep less, score fewer --rows or a coarser grid, or raise --memory.",
        )


def _versions() -> dict[str, str]:
    import finufft

    return {
        "cryolike-scipion": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "finufft": finufft.__version__,
    }


def _describe(setup: Setup) -> None:
    table, grid = setup.tables[0], setup.settings.grid
    noise = "white" if setup.settings.noise is None else "radial"
    logger.info(
        "%d particles against %d structures, %s search, %s noise",
        len(setup.particles),
        len(setup.structures),
        setup.search,
        noise,
    )
    logger.info(
        "to %.2f Å: %d radii, %d in-plane angles, %d views (%.2f°), %d shifts (within %.1f Å); %d finer levels",
        1 / grid.k_max,
        grid.n_radii,
        setup.n_inplane,
        len(table),
        table.step_deg,
        len(setup.shifts),
        setup.shifts.reach,
        setup.division.levels,
    )


def _conclude(out: Path, results: Results) -> None:
    good = results.status == OK
    for label, n in zip(results.labels, np.bincount(results.best_structure, minlength=len(results.labels) + 1)[1:]):
        logger.info("%s: %d particles", label, n)
    if not good.all():
        counts = np.bincount(results.status, minlength=len(STATUS_NAMES))
        found = ", ".join(f"{n} {name}" for n, name in zip(counts[1:], STATUS_NAMES[1:]) if n)
        logger.warning("%d of %d images could not be scored: %s", int((~good).sum()), len(good), found)
    if good.any() and float(np.median(results.of_best("cc")[good])) < 0:
        logger.warning("most particles correlate negatively with their projections: try to invert the contrast")
    logger.info("results: %s", out)
