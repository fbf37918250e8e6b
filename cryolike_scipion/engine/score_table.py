"""``scores.csv``: a line a particle, with its scores under every structure, for pandas, R and spreadsheets."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

import numpy as np

from .atomic import atomic_path
from .image_stacks import OK, STATUS_NAMES
from .particles import Particles
from .results import Results

# Columns of the source that name a particle for another program.
_IDENTITIES = ("cryolikeItemId", "cryolikeCryosparcUid")
_OF_BEST = {
    "structure_posterior": "structurePosterior",
    "pose_posterior": "posePosterior",
    "pose_entropy": "poseEntropy",
    "pose_effective": "poseEffective",
    "pose_gap": "poseGap",
    "pose_spread": "poseSpread",
    "log_ratio_z": "logRatioZ",
    "integrated": "logLikelihood",
    "max": "logLikelihoodMax",
    "cc": "crossCorrelation",
    "scale": "scale",
    "best_template": "bestTemplate",
    "rot": "rot",
    "tilt": "tilt",
    "psi": "psi",
    "origin_x": "originXAngst",
    "origin_y": "originYAngst",
}


def write_table(path: str | os.PathLike[str], results: Results, particles: Particles) -> None:
    """Write the table, atomically.

    One header line, names without blanks, comma-separated, UTF-8. Numbers have the digits that give the same number
    back. Cells are empty (NaN in pandas) where an image could not be scored. ``logLikelihood_k`` and ``posterior_k`` are
    those of structure k, counted from 1; angles are degrees, origins Å, log-likelihoods nat.

    Parameters
    ----------
    path : path
    results : Results
    particles : Particles
        The same particles.
    """
    columns: dict[str, Sequence[object]] = {label: _texts(particles, label) for label in _IDENTITIES if _has(particles, label)}
    columns |= {
        "source": [os.fspath(particles.sources[s]) for s in particles.source_index],
        "row": particles.row.tolist(),
        "imageName": particles.image_names(),
        "status": [STATUS_NAMES[s] for s in results.status],
        "bestStructure": results.best_structure.tolist(),
        "bestLabel": [results.labels[k - 1] if k else "" for k in results.best_structure],
    }
    good = results.status == OK
    columns |= {name: _numbers(results.of_best(of), good) for of, name in _OF_BEST.items()}
    columns["logLikelihoodNull"] = _numbers(results.null_log_density, good)
    for k in range(len(results.structures)):
        columns[f"logLikelihood_{k + 1}"] = _numbers(results.integrated[k], good)
        columns[f"posterior_{k + 1}"] = _numbers(results.structure_posterior[k], good)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))


def _has(particles: Particles, label: str) -> bool:
    return all(label in document.particles.labels for document in particles.documents)


def _texts(particles: Particles, label: str) -> list[str]:
    texts = [d.particles.columns([label], d.star.path)[label] for d in particles.documents]
    return [texts[s][r - 1] for s, r in zip(particles.source_index, particles.row)]


def _numbers(values: np.ndarray, good: np.ndarray) -> list[object]:
    return [value if ok else "" for value, ok in zip(values.tolist(), good)]
