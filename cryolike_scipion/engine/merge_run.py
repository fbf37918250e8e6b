"""The verb ``merge``: runs over different structures, or different particles, become one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .agreement import merge_agreement
from .best_poses import merge_best_poses
from .errors import InputError
from .gallery_merge import merge_galleries
from .image_stacks import OK
from .noise_spectrum import NoiseModel
from .particles import Particles, read_particles
from .progress import Progress
from .report_run import REPORT, or_warn, title_of, write_report
from .result_files import EXPORTS, remove_results, write_particle_files
from .results import (
    PER_PARTICLE,
    PER_STRUCTURE,
    Quantity,
    Results,
    StructureEntry,
    load_results,
)
from .structure_posteriors import prior_probabilities

logger = logging.getLogger(__name__)

# Parameters that may differ between runs that are merged: what differs by purpose, and where and how fast
# they ran.
_FREE = frozenset(
    {
        "structures",
        "labels",
        "symmetry",
        "rows",
        "out",
        "runs",
        "priors",
        "device",
        "threads",
        "memory",
        "batch_images",
        "batch_templates",
        "restart",
        "shared_by",
        "learn_only",
        "no_report",
        "scale_from",
        "noise_from",
        "particles",
        "root",
        "bad_images",
        "keep",
        "best_poses",  # the smaller number is kept
        "atom_model",
        "atom_radius",
        "residue_model",
        "select",
        "models",
        "assembly",
        "no_hydrogens",
        "waters",
        "scale_prior",  # learned by each run from its own particles and structures: compared below
        "polar",
        "input_views",
        *EXPORTS,
    }
)
_PRIOR_TOLERANCE = 0.1
_NOISE_TOLERANCE = 0.05
# The null's log density does not depend on structures, so the same images give the same one.
_NULL_TOLERANCE = 1e-5


@dataclass(frozen=True)
class _Run:
    """One of the runs to merge."""

    folder: Path
    results: Results
    particles: Particles

    @property
    def structures(self) -> tuple[StructureEntry, ...]:
        return tuple(self.results.structures)

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Source and row of each particle."""
        results = self.results
        return [(results.sources[s], int(r)) for s, r in zip(results.source_index, results.row)]


def run(parameters: Mapping[str, Any], progress: Progress) -> None:
    """Merge runs and write what ``likelihood`` writes: particle table, matrix, scores and report.

    Runs over the same rows must have different structures; runs over the same structures must have different
    rows, of one particle file or of several. With both, every set of rows needs every structure. Structures and
    particle files come in the order in which the runs are given, rows in the order of their file. Posteriors over
    structures are computed anew. Arrays that ``--keep`` asked for stay in the runs' own folders.

    Parameters
    ----------
    parameters : mapping
        ``runs`` (output folders of ``likelihood`` or ``merge``), ``out`` (folder), ``priors`` (weights of the
        merged structures, or ``None``); ``assigned_above``, ``csv`` and ``cs`` as for ``likelihood``.
    progress : Progress

    Raises
    ------
    InputError
        If the runs are not of the same particles, were made with different parameters, or do not fit
        together.
    """
    folders = [Path(folder) for folder in parameters["runs"]]
    if len(folders) < 2:
        raise InputError("fewer than two runs are given", remedy="Give the output folders of at least two runs")
    out = Path(parameters["out"])
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise InputError("the output folder is one of the runs", out, remedy="Give another folder with --out")
    progress.start(len(folders) + 1, "merge", "runs")
    runs = []
    for folder in folders:
        runs.append(_read(folder))
        progress.update()
    for other in runs[1:]:
        _check_compatible(runs[0], other)
    structures = _all_structures(runs)
    groups = _groups_of_rows(runs, structures)
    merged, particles = _merge(groups, structures, parameters.get("priors"))
    parts = [part for item in runs for part in item.results.parameters.get("runs", [str(item.folder)])]
    merged.parameters = {**runs[0].results.parameters, "runs": parts}
    kept = [item.results.parameters["best_poses"] for item in runs if "best_poses" in item.results.parameters]
    if kept:
        merged.parameters["best_poses"] = min(kept)
    remove_results(out)
    merge_agreement(merged, [item.results for item in runs])
    merge_best_poses(merged, [item.results for item in runs])
    merged.save(out)
    write_particle_files(out, merged, particles, parameters, [members[0].folder for members in groups])
    or_warn("the pictures of particles", merge_galleries, out, merged, [(item.folder, item.results) for item in runs])
    or_warn("the report", write_report, merged, out / REPORT, title_of(out))
    progress.update()
    progress.close()


def _read(folder: Path) -> _Run:
    results = load_results(folder)
    particles = read_particles(folder / "particles.star")
    if len(particles) != results.integrated.shape[1]:
        raise InputError(
            f"particles.star has {len(particles)} rows, scores.h5 has {results.integrated.shape[1]}",
            folder,
            remedy="Run the scoring again: the folder holds parts of two runs",
        )
    return _Run(folder, results, particles)


def _check_compatible(first: _Run, other: _Run) -> None:
    """Whether two runs are of the same particles and were made alike."""
    a, b = first.results.parameters, other.results.parameters
    _compare_priors(first, other)
    _compare_noise(first, other)
    for name in ("k_max", "images"):
        one, two = (p.get("polar", {}).get(name) for p in (a, b))
        if one != two:
            raise InputError(
                f"{name} of the polar grid is {two!r}, and {one!r} in {first.folder}",
                other.folder,
                remedy="Merge runs that were made with the same --resolution and preparation of images",
            )
    if None not in (views := (a.get("input_views"), b.get("input_views"))) and views[0] != views[1]:
        raise InputError(
            f"the prior over views is of other input poses than in {first.folder}",
            other.folder,
            remedy="Score one of them with --scale-from the other, or both with --view-prior uniform",
        )
    for name in sorted({*a, *b} - _FREE):
        if a.get(name) != b.get(name):
            raise InputError(
                f"{name} is {b.get(name)!r}, and {a.get(name)!r} in {first.folder}",
                other.folder,
                remedy="Merge runs that were made with the same parameters",
            )


def _compare_priors(first: _Run, other: _Run) -> None:
    """Warn where two runs learned different contrasts: then their log-likelihoods are not those of one run."""
    one, two = _priors_by_group(first), _priors_by_group(other)
    for name, pixel_size in (key for key in one if key in two):
        a, b = one[name, pixel_size], two[name, pixel_size]
        if a.get("flat") or b.get("flat"):
            continue
        if abs(a["mu"] - b["mu"]) > _PRIOR_TOLERANCE * max(abs(a["mu"]), abs(b["mu"])):
            logger.warning(
                "%s and %s learned different contrasts (%.4g and %.4g) in optics group %s: probabilities between their "
                "structures are approximate; one run over all structures is exact",
                first.folder,
                other.folder,
                a["mu"],
                b["mu"],
                name,
            )


def _compare_noise(first: _Run, other: _Run) -> None:
    """Warn where two runs found different spectra of radial noise; over the same rows they are refused: see `_check_images`."""
    one, two = _noise_by_group(first), _noise_by_group(other)
    for key in (key for key in one if key in two):
        difference = float(np.abs(np.log(two[key] / one[key])).max())
        if difference > _NOISE_TOLERANCE:
            logger.warning(
                "%s and %s found noise spectra of optics group %s that differ by up to %.0f %%: --noise-from gives both one",
                first.folder,
                other.folder,
                key[0],
                100 * difference,
            )


def _noise_by_group(run: _Run) -> dict[tuple[str, float], NDArray[np.float64]]:
    """A run's noise power within the band, by name and pixel size of the optics group."""
    parameters = run.results.parameters
    plain = parameters.get("polar", {}).get("noise")
    if plain is None:
        return {}
    noise = NoiseModel.from_plain(plain)
    k = np.linspace(0.1, 1.0, 20) * parameters["polar"]["k_max"]
    optics = (parameters.get("scale_prior") or {}).get("optics", [])
    return {(name, round(pixel_size, 4)): noise.power(g, k) for g, (name, pixel_size) in enumerate(optics)}


def _priors_by_group(run: _Run) -> dict[tuple[str, float], Mapping[str, Any]]:
    """A run's contrasts by name and pixel size of the optics group, since numbers differ between particle files."""
    learned = run.results.parameters.get("scale_prior") or {}
    optics = learned.get("optics", [])
    return {(optics[int(g)][0], round(optics[int(g)][1], 4)): prior for g, prior in learned.get("groups", {}).items() if optics}


def _all_structures(runs: Sequence[_Run]) -> list[StructureEntry]:
    """Structures of all runs in the order of first use; none twice under two entries."""
    structures: dict[StructureEntry, Path] = {}
    for item in runs:
        for entry in item.structures:
            structures.setdefault(entry, item.folder)
    by_label: dict[str, Path] = {}
    for entry, folder in structures.items():
        if entry.label in by_label:
            raise InputError(
                f"the label '{entry.label}' stands for another structure than in {by_label[entry.label]}",
                folder,
                remedy="Give structures labels of their own; each with one file, symmetry and choice of atoms in all runs",
            )
        by_label[entry.label] = folder
    return list(structures)


def _groups_of_rows(runs: Sequence[_Run], structures: Sequence[StructureEntry]) -> list[list[_Run]]:
    """Runs that share their rows, one list for each set of rows; each list has every structure once."""
    groups: dict[tuple[tuple[str, int], ...], list[_Run]] = {}
    for item in runs:
        groups.setdefault(tuple(item.keys), []).append(item)
    seen: dict[tuple[str, int], Path] = {}
    for keys, members in groups.items():
        for key in keys:
            if key in seen:
                raise InputError(
                    f"row {key[1]} is also in {seen[key]}, which has other rows beside it",
                    members[0].folder,
                    remedy="Merge runs whose rows are the same or all different",
                )
        seen.update(dict.fromkeys(keys, members[0].folder))
        have: dict[StructureEntry, Path] = {}
        for item in members:
            for entry in item.structures:
                if entry in have:
                    raise InputError(
                        f"the structure '{entry.label}' is also in {have[entry]}, for the same rows",
                        item.folder,
                        remedy="Leave out one of the two runs",
                    )
                have[entry] = item.folder
            _check_images(members[0], item)
        for entry in structures:
            if entry not in have:
                raise InputError(
                    f"the rows of this run have no scores for the structure '{entry.label}'",
                    members[0].folder,
                    remedy="Score these rows with it, or leave it out everywhere",
                )
    return list(groups.values())


def _check_images(first: _Run, other: _Run) -> None:
    """Whether two runs saw the same images in the same rows."""
    a, b = first.results, other.results
    names = [i for i, (x, y) in enumerate(zip(a.image_name, b.image_name)) if x != y]
    both = (a.status == OK) & (b.status == OK)
    difference = np.abs(a.null_log_density - b.null_log_density)
    differs = (a.status != b.status) | (both & (difference > _NULL_TOLERANCE * np.abs(a.null_log_density) + 1e-3))
    if names or differs.any():
        row = int(a.row[names[0] if names else np.argmax(differs)])
        raise InputError(
            f"the image differs from that of the run in {first.folder}",
            other.folder,
            row,
            "Score both with the same images, preparation of images and, where it is radial, --noise-from the first run",
        )


def _merge(
    groups: Sequence[Sequence[_Run]], structures: Sequence[StructureEntry], priors: Sequence[float] | None
) -> tuple[Results, Particles]:
    first = groups[0][0].results
    count = sum(len(members[0].particles) for members in groups)
    merged = Results.empty(structures, count)
    if priors:
        merged.priors = prior_probabilities(priors, len(structures))
    place = {entry: k for k, entry in enumerate(structures)}
    start = 0
    for members in groups:
        stop = start + len(members[0].particles)
        for item in members:
            rows = [place[entry] for entry in item.structures]
            for name in PER_STRUCTURE:
                getattr(merged, name)[rows, start:stop] = getattr(item.results, name)
        for name in PER_PARTICLE:
            getattr(merged, name)[start:stop] = getattr(members[0].results, name)
        start = stop
    leaders = [members[0] for members in groups]
    merged.image_name = [name for item in leaders for name in item.results.image_name]
    merged.row = np.concatenate([item.results.row for item in leaders])
    merged.sources = list(dict.fromkeys(source for item in leaders for source in item.results.sources))
    merged.source_index = np.concatenate([_renumbered(item.results, merged.sources) for item in leaders])
    merged.versions = first.versions
    merged.grids = _merged_grids([item.results.grids for members in groups for item in members])
    order = np.lexsort((merged.row, merged.source_index))
    _reorder(merged, order)
    particles = read_particles([item.folder / "particles.star" for item in leaders]).take(order)
    merged.update_posteriors(groups=particles.optics_index)
    return merged, particles


def _renumbered(results: Results, sources: Sequence[str]) -> NDArray[np.int64]:
    """Which of the merged run's sources each particle of a run comes from."""
    numbers = np.array([sources.index(source) for source in results.sources], dtype=np.int64)
    return numbers[results.source_index]


def _merged_grids(grids: Sequence[Mapping[str, Quantity]]) -> dict[str, Quantity]:
    """Grids of all runs: one where all have the same, else each with the run's number before its name."""
    merged: dict[str, Quantity] = {}
    for name in dict.fromkeys(name for own in grids for name in own):
        present = {n: own[name] for n, own in enumerate(grids, 1) if name in own}
        first = next(iter(present.values()))
        if len(present) == len(grids) and all(np.array_equal(q.values, first.values) for q in present.values()):
            merged[name] = first
        else:
            merged |= {f"run{n}_{name}": quantity for n, quantity in present.items()}
    return merged


def _reorder(results: Results, order: NDArray[np.int64]) -> None:
    for name in (*PER_STRUCTURE, *PER_PARTICLE, "row", "source_index"):
        setattr(results, name, getattr(results, name)[..., order])
    results.image_name = [results.image_name[i] for i in order]
