"""The verb ``ensemble``: populations of structures from a matrix of likelihoods."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import __version__
from .atomic import atomic_path
from .ensemble import LEVEL, Ensemble, estimate
from .errors import InputError
from .fingerprint import canonical_json
from .likelihood_matrix import LikelihoodMatrix, read_matrix
from .model_comparison import SetComparison, compare_over_set
from .own_output import refuse_overwriting
from .progress import Progress
from .report_run import title_of

__all__ = ["run"]

TABLE, NUMBERS, DRAWS, PAGE = "populations.csv", "ensemble.json", "ensemble.h5", "ensemble.html"
_MOST = 5000  # structures: pairs of them are looked at
# Why draws are not sound, by how they were made.
_DOUBT = {
    "hamiltonian": "the draws of the posterior had not converged (R̂ {:.2f}): intervals are approximate",
    "normal": "some of so many structures cannot be told apart, and how they divide is far from the normal approximation: "
    "intervals are approximate",
}
logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Estimate populations and write ``populations.csv``, ``ensemble.json``, ``ensemble.h5`` and ``ensemble.html``.

    Parameters
    ----------
    parameters : completed parameters of the verb ``ensemble``.
    progress : told about the four parts of the work.

    Raises
    ------
    InputError
        If the source is no matrix of likelihoods.
    """
    out, source = Path(parameters["out"]), Path(parameters["scores"])
    refuse_overwriting(out, (TABLE, NUMBERS, DRAWS, PAGE), [] if source.is_dir() else [source])
    out.mkdir(parents=True, exist_ok=True)
    progress.start(3, "ensemble", "parts")
    matrix = read_matrix(source, parameters["orientation"], parameters["labels"])
    if parameters["with_none"]:
        matrix = matrix.with_none(source)
    if len(matrix.labels) > _MOST:
        raise InputError(f"{len(matrix.labels)} structures", source, remedy=f"Give at most {_MOST}; cluster them first")
    progress.update(1)
    found = estimate(matrix.values, parameters["concentration"], parameters["bootstrap"], parameters["seed"])
    comparison = compare_over_set(np.asarray(matrix.values))
    progress.update(1)
    numbers = _numbers(matrix, found, comparison, parameters)
    _write(out, numbers, found)
    from .ensemble_report import render  # matplotlib, which input that is refused need not wait for

    with atomic_path(out / PAGE) as temporary:
        temporary.write_text(render(numbers, found, title_of(out)), encoding="utf-8", errors="backslashreplace")
    progress.update(1)
    progress.close()
    _conclude(out, numbers)


def _numbers(
    matrix: LikelihoodMatrix, found: Ensemble, comparison: SetComparison, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Everything as JSON values."""
    columns = {
        "most_likely": found.best.populations,
        "mean": found.mean,
        "deviation": found.deviation,
        "low": found.interval[0],
        "high": found.interval[1],
        "bootstrap_low": found.bootstrap[0],
        "bootstrap_high": found.bootstrap[1],
        "effective_particles": found.posterior.effective_particles,
        "log_evidence_per_particle": comparison.mean,
        "behind_best": comparison.behind,
        "behind_best_error": comparison.error,
        "deciding_particles": comparison.deciding,
    }
    structures = [
        {"number": k + 1, "label": label, **{name: _plain(values[k]) for name, values in columns.items()}}
        for k, label in enumerate(matrix.labels)
    ]
    return {
        "version": __version__,
        "parameters": parameters,
        "particles": found.particles,
        "left_out": matrix.left_out,
        "level": LEVEL,
        "structures": structures,
        "alike": [
            {"structures": [k + 1 for k in g.members], "mean": g.population, "low": g.low, "high": g.high} for g in found.alike
        ],
        "effective_particles": found.effective_particles,
        "effective_structures": found.effective_structures,
        "prior": {"kind": "Dirichlet", "concentration": parameters["concentration"]},
        "gap_of_most_likely": found.best.gap,
        "log_likelihood": found.best.log_likelihood,
        "sampler": {
            "method": found.posterior.method,
            "draws": len(found.posterior.draws),
            "quality": found.posterior.quality,
            "sound": bool(found.posterior.sound),
            "doubt": "" if found.posterior.sound else _DOUBT[found.posterior.method].format(found.posterior.quality),
        },
        "replicates": found.replicates,
    }


def _plain(value: Any) -> Any:
    value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write(out: Path, numbers: dict[str, Any], found: Ensemble) -> None:
    with atomic_path(out / TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(numbers["structures"][0]))
        writer.writeheader()
        writer.writerows(numbers["structures"])
    with atomic_path(out / DRAWS) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["parameters"] = canonical_json(numbers["parameters"])
        file.attrs["labels"] = canonical_json([s["label"] for s in numbers["structures"]])
        for name, values, meaning in (
            ("draws", found.posterior.draws, "populations drawn from their posterior [draws × structures]"),
            ("most_likely", found.best.populations, "populations of the largest likelihood [structures]"),
            ("known_of_division", found.known, "share of the information on how two structures divide [structures²]"),
        ):
            dataset = file.create_dataset(name, data=values)
            dataset.attrs["unit"], dataset.attrs["meaning"] = "1", meaning
    with atomic_path(out / NUMBERS) as temporary:
        temporary.write_text(json.dumps(numbers, indent=1, ensure_ascii=False), encoding="utf-8")


def _conclude(out: Path, numbers: dict[str, Any]) -> None:
    ranked = sorted(numbers["structures"], key=lambda s: -s["mean"])
    for s in ranked[:20]:
        logger.info("%s: %.1f %% (%.1f to %.1f %%)", s["label"], 100 * s["mean"], 100 * s["low"], 100 * s["high"])
    if len(ranked) > 20:
        logger.info("and %d more", len(ranked) - 20)
    logger.info(
        "%d particles, worth %.0f of known structure; 95 %% credible intervals",
        numbers["particles"],
        numbers["effective_particles"],
    )
    for group in numbers["alike"]:
        names = [numbers["structures"][k - 1]["label"] for k in group["structures"]]
        logger.warning(
            "these particles cannot tell apart %s: only their sum is known, %.1f %% (%.1f to %.1f %%)",
            ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else ""),
            100 * group["mean"],
            100 * group["low"],
            100 * group["high"],
        )
    if not numbers["sampler"]["sound"]:
        logger.warning("%s", numbers["sampler"]["doubt"])
    logger.info("results: %s", out)
