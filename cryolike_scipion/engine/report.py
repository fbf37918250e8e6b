"""The report of a likelihood run: which structure does each particle show, at which pose, and how sure is that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..plots import classes, noise, one_particle, poses, scores, structures, volumes
from . import report_page as page
from .agreement import ANGLE, SHIFT
from .model_comparison import compare_over_set
from .results import Results

__all__ = ["render"]

_EXAMPLES = {
    "clear": "A particle of high log-likelihood.",
    "middling": "A particle of middling log-likelihood.",
    "undecided": "The particle whose structure is least decided.",
}


def render(
    results: Results,
    title: str,
    gallery: Mapping[str, np.ndarray] | None = None,
    densities: Sequence[tuple[str, np.ndarray, float]] = (),
) -> str:
    """Write the page of a likelihood run.

    Parameters
    ----------
    results : the run, from :func:`cryolike_scipion.engine.results.load_results`.
    title : heading of the page.
    gallery : pictures of the run, from :mod:`cryolike_scipion.engine.gallery`, where it has them.
    densities : sequence of (label, float [z, y, x], voxel size in Å), of structures.

    Returns
    -------
    str
        HTML, with its pictures inside.
    """
    scored = results.best_structure > 0
    body = [_facts(results, scored)]
    if scored.any():
        body += [
            page.section("Structures", _structures(results, scored), _structure_plots(results, scored)),
            _comparison(results, scored),
            page.section("Scores", _score_plots(results, scored)),
            page.section("Poses", _pose_plots(results, scored)),
        ]
    body.append(_noise(results))
    if scored.any() and gallery is not None:
        body.append(page.section("Particles", _pictures(gallery)))
    if densities:
        drawn = [(volumes.slices_and_projections(density, label, pixel), label) for label, density, pixel in densities]
        body.append(page.section("Densities", page.plots(drawn)))
    body.append(page.section("Parameters", page.parameter_table({**_plain_parameters(results), **results.versions})))
    return page.page(title, "Which structure does each particle show, at which pose?", body)


def _noise(results: Results) -> str:
    """Spectra of radial noise; nothing where it is white."""
    if "noise_power" not in results.grids:
        return ""
    frequency, power = (results.grids[name].values for name in ("noise_frequency", "noise_power"))
    labels = [str(name) for name, _ in results.parameters["scale_prior"]["optics"]]
    caption = (
        "Power of the noise of each optics group, mean 1: detail is weighted by its inverse. From the background and "
        "what is left of some particles without their projections. Nothing in the shaded part was compared."
    )
    figure = noise.noise_spectra(frequency, power, results.parameters["polar"]["k_max"], labels)
    return page.section("Noise", page.plots([(figure, caption)]))


def _plain_parameters(results: Results) -> dict[str, Any]:
    """Parameters without the numbers behind the plotted spectra."""
    polar = results.parameters.get("polar")
    if not isinstance(polar, Mapping) or "noise" not in polar:
        return results.parameters
    return {**results.parameters, "polar": {name: value for name, value in polar.items() if name != "noise"}}


def _facts(results: Results, scored: np.ndarray) -> str:
    chosen = results.of_best("structure_posterior")[scored]
    facts = [
        (f"{len(scored):,}", "particles"),
        (f"{len(results.structures)}", "structures"),
        (f"{int((~scored).sum()):,}", "could not be scored"),
    ]
    if scored.any():
        facts.append((f"{np.median(results.of_best('cc')[scored]):.3f}", "median cross-correlation"))
    if len(results.structures) > 1:
        facts.append((f"{100 * structures.decided(chosen):.0f} %", "have a structure posterior above 0.95"))
    return page.facts(facts)


def _structures(results: Results, scored: np.ndarray) -> str:
    share, deviation = structures.population_shares(results.structure_posterior[:, scored])
    cc, log_likelihood = results.of_best("cc"), results.of_best("integrated")
    rows = []
    for k, label in enumerate(results.labels):
        own = results.best_structure == k + 1
        median = [f"{np.median(values[own]):.4g}" if own.any() else "" for values in (cc, log_likelihood)]
        shares = f"{100 * share[k]:.1f} ± {100 * deviation[k]:.1f}"
        rows.append([str(k + 1), label, f"{int(own.sum()):,}", shares, *median])
    header = [
        "number",
        "structure",
        "best for",
        "expected share (%)",
        "median cross-correlation",
        "median logLikelihood (nat)",
    ]
    return page.table(header, rows, numbers=(0, 2, 3, 4, 5))


def _comparison(results: Results, scored: np.ndarray) -> str:
    """One structure for all particles: which, by how much, and how many particles decide it."""
    if len(results.structures) < 2:
        return ""
    found = compare_over_set(results.integrated[:, scored])
    rows = [
        [
            str(k + 1),
            label,
            f"{found.total[k]:.1f}",
            f"{found.mean[k]:.3f}",
            f"{found.behind[k]:.1f} ± {found.error[k]:.1f}" if k != found.best else "the best",
            f"{found.for_best[k]:,}" if k != found.best else "",
            f"{found.deciding[k]:,}" if k != found.best else "",
        ]
        for k, label in enumerate(results.labels)
    ]
    header = [
        "number",
        "structure",
        "log evidence (nat)",
        "per particle (nat)",
        "behind the best (nat, jackknife error)",
        "particles for the best",
        "particles that decide it",
    ]
    table = page.table(header, rows, numbers=(0, 2, 3, 4, 5, 6))
    fragile = [label for label, each in zip(results.labels, found.fragile) if each]
    if fragile:
        title = "not decided against the best: within two errors, or by three particles or fewer"
        table += page.table([title], [[label] for label in fragile])
    return page.section("If one structure had made all particles", table)


def _structure_plots(results: Results, scored: np.ndarray) -> str:
    if len(results.structures) < 2:
        return ""
    integrated = results.integrated[:, scored]
    return page.plots(
        [
            (
                structures.populations(results.structure_posterior[:, scored], results.labels),
                "Expected share of each structure among these particles; the bars are the standard deviation "
                "that the posteriors leave.",
            ),
            (
                structures.posterior_histogram(results.of_best("structure_posterior")[scored]),
                "Posterior of the best structure. Particles on the left are undecided.",
            ),
            (
                structures.log_odds(integrated, results.labels),
                "Difference of the integrated log-likelihoods of two structures; the far ends are gathered in the last bars.",
            ),
            (
                structures.likelihood_matrix(integrated, results.best_structure[scored] - 1, results.labels),
                "Every particle under every structure: integrated log-likelihood less that of its best structure.",
            ),
        ]
    )


def _score_plots(results: Results, scored: np.ndarray) -> str:
    best, labels = results.best_structure[scored] - 1, results.labels
    figures = []
    for score in scores.SCORES:
        if score.name == "structure_posterior" and len(labels) < 2:
            continue
        values = results.of_best(score.name)[scored]
        meaning = f"{score.meaning} Curves: share of a structure's particles at or above."
        figures.append((scores.score_histogram(score.axis, values, best, labels), meaning))
    return page.plots(figures)


def _pose_plots(results: Results, scored: np.ndarray) -> str:
    best, labels = results.best_structure[scored] - 1, results.labels
    rot, tilt, psi, x, y = (results.of_best(name)[scored] for name in ("rot", "tilt", "psi", "origin_x", "origin_y"))
    figures = [
        (
            poses.view_distribution(rot, tilt, best, labels),
            "Viewing directions on an equal-area map of the sphere: uniform views fill it evenly.",
        ),
        (poses.inplane_distribution(psi, best, labels), "In-plane angles: they should be uniform."),
        (
            poses.shift_distribution(x, y),
            "Origins of the best poses. Points along an edge say that the shift range was too small.",
        ),
    ]
    if ANGLE in results.extras:
        angle, shift = (results.extras[name].values[scored] for name in (ANGLE, SHIFT))
        figures.append(
            (
                poses.agreement(angle, shift, best, labels),
                "Difference of the best pose from the one that the particle came with; the last bar gathers the far end.",
            )
        )
    return page.plots(figures)


def _pictures(gallery: Mapping[str, np.ndarray]) -> str:
    labels = [str(label) for label in gallery["labels"]]
    shown = [labels[number - 1] for number in gallery["shown"]]
    figures = [
        (
            classes.members(gallery, shown),
            "Of each structure, the average of the particles in its most frequent view and those of highest log-likelihood, "
            "smoothed a little, with their projections below. Numbers are rows of particles.star.",
        )
    ]
    for number, kind in enumerate(gallery["example_kind"], start=1):
        figures += _example(gallery, f"example_{number}_", int(gallery["example_row"][number - 1]), str(kind), labels)
    return page.plots(figures)


def _example(gallery: Mapping[str, np.ndarray], prefix: str, row: int, kind: str, labels: list[str]) -> list:
    names = ("image", "templates", "residual", "cc", "log_likelihood", "structure_posterior")
    image, templates, residual, cc, log_likelihood, posterior = (gallery[prefix + name] for name in names)
    title = f"Particle {row}"
    picture = one_particle.comparison(image, templates, residual, labels, cc, log_likelihood, posterior, title)
    figures = [(picture, f"{_EXAMPLES[kind]} Residual: the particle less the template, which is fitted to its greys.")]
    best = int(gallery[prefix + "best_structure"])
    end = f"_{best:03d}"
    if f"{prefix}view_score{end}" in gallery:
        rot, tilt, score = (gallery[f"{prefix}view_{name}{end}"] for name in ("rot", "tilt", "score"))
        shift, inplane, scores_ = (gallery[f"{prefix}{name}{end}"] for name in ("shift", "inplane", "shift_inplane_score"))
        label = labels[best - 1]
        figures += [
            (
                one_particle.view_landscape(rot, tilt, score, label),
                f"{title}: the best score at every view. One small spot: the pose is sure.",
            ),
            (
                one_particle.shift_landscape(shift, inplane, scores_, label),
                f"{title}: the best score over views for every shift and in-plane angle.",
            ),
        ]
    return figures
