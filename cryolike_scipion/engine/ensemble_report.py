"""One self-contained HTML page of populations: plots, numbers, warnings."""

from __future__ import annotations

from typing import Any

from ..plots import ensemble as plots
from . import report_page as page
from .ensemble import Ensemble

__all__ = ["render"]

_MATRIX = 200  # structures of which every pair is drawn


def render(numbers: dict[str, Any], found: Ensemble, title: str) -> str:
    """The page.

    Parameters
    ----------
    numbers : content of ``ensemble.json``.
    found : the populations.
    title : heading.
    """
    structures = numbers["structures"]
    labels = [s["label"] for s in structures]
    facts = [
        (f"{numbers['particles']:,}", "particles"),
        (f"{len(structures)}", "structures"),
        (f"{numbers['effective_particles']:,.0f}", "particles of known structure would say as much"),
        (f"{numbers['effective_structures']:.1f}", "equal structures would be as varied"),
    ]
    replicates = numbers["replicates"]
    figures = [
        (
            plots.populations_with_errors(
                labels,
                found.mean,
                found.interval[0],
                found.interval[1],
                found.best.populations,
                found.bootstrap if replicates else None,
            ),
            "Populations: posterior mean with its 95 % credible interval, most likely value (cross)"
            + (", 95 % bootstrap interval (dotted)." if replicates else "."),
        )
    ]
    if len(structures) <= _MATRIX:
        figures.append(
            (
                plots.known_of_division(found.known),
                "How much the particles tell about the division between two structures, of what particles of known structure "
                "would: dark pairs cannot be told apart.",
            )
        )
    sampler = numbers["sampler"]
    how = {
        "prior": f"Dirichlet, {numbers['prior']['concentration']:g} for each structure",
        "draws of the posterior": f"{sampler['draws']}, {sampler['method']}, quality {sampler['quality']:.3f}",
        "most likely populations": f"within {numbers['gap_of_most_likely']:.2g} nat of the maximum",
        "bootstrap replicates": str(replicates),
        **numbers["parameters"],
        "version": numbers["version"],
    }
    body = [
        page.facts(facts),
        _alike(numbers, labels),
        page.section(f"Doubtful: {sampler['doubt']}") if sampler["doubt"] else "",
        page.section("Populations", page.plots(figures), _numbers_table(numbers)),
        page.section("If one structure had made all particles", _comparison_table(numbers)),
        page.section("How it was done", page.parameter_table(how)),
    ]
    return page.page(title, "How many of the particles show which structure?", body)


def _alike(numbers: dict[str, Any], labels: list[str]) -> str:
    """Groups that cannot be told apart."""
    if not numbers["alike"]:
        return ""
    rows = [
        [
            ", ".join(labels[k - 1] for k in group["structures"]),
            f"{_percent(group['mean'])} ({_percent(group['low'])} to {_percent(group['high'])})",
        ]
        for group in numbers["alike"]
    ]
    return page.section(
        "Structures that these particles cannot tell apart: only the sum of their populations is known",
        page.table(["structures", "together (%)"], rows, numbers=(1,)),
    )


def _numbers_table(numbers: dict[str, Any]) -> str:
    rows = []
    for s in numbers["structures"]:
        again = "" if s["bootstrap_low"] is None else f"{_percent(s['bootstrap_low'])} to {_percent(s['bootstrap_high'])}"
        rows.append(
            [
                str(s["number"]),
                s["label"],
                _percent(s["most_likely"]),
                f"{_percent(s['mean'])} ± {_percent(s['deviation'])}",
                f"{_percent(s['low'])} to {_percent(s['high'])}",
                again,
                f"{s['effective_particles']:,.0f}",
            ]
        )
    header = ["number", "structure", "most likely (%)", "posterior mean (%)", "95 % credible (%)", "95 % bootstrap (%)"]
    return page.table([*header, "effective particles"], rows, numbers=(0, 2, 3, 4, 5, 6))


def _comparison_table(numbers: dict[str, Any]) -> str:
    rows = [
        [
            str(s["number"]),
            s["label"],
            f"{s['log_evidence_per_particle']:.3f}",
            f"{s['behind_best']:.1f} ± {s['behind_best_error']:.1f}",
            f"{s['deciding_particles']:,}" if s["deciding_particles"] else "",
        ]
        for s in numbers["structures"]
    ]
    header = ["number", "structure", "log evidence per particle (nat)", "behind the best (nat)", "particles that decide it"]
    return page.table(header, rows, numbers=(0, 2, 3, 4))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= 0.001 else f"{100 * value:.2g}"
