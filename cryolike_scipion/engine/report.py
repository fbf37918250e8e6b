"""One self-contained HTML page of a likelihood run: no network, no script, every text escaped."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import report_plots as plots
from .results import Results

_STYLE = """
:root { --ink: #1d2a33; --soft: #5c6b73; --line: #dde3e7; --back: #f6f8f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.facts div { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; flex:
1 1 9rem; } .facts b { display: block; font-size: 1.35rem; } .plots { display: flex; flex-wrap: wrap; gap:
.8rem; } figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding:
.8rem;
         flex: 1 1 20rem; max-width: min(100%, 32rem); }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; }
.scroll { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; background: #fff; width: 100%; font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; min-width: 6rem;
         overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


def render(results: Results, title: str) -> str:
    """Write the page of a likelihood run.

    Parameters
    ----------
    results : the run, from :func:`cryolike_scipion.engine.results.load_results`.
    title : heading of the page.

    Returns
    -------
    str
        HTML, with its pictures inside.
    """
    scored = results.best_structure > 0
    body = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>Which structure does each particle show, at which pose?</p>",
        _facts(results, scored),
    ]
    if scored.any():
        body += ["<h2>Structures</h2>", _structures(results, scored), _structure_plots(results, scored)]
        body += [
            "<h2>Scores</h2>",
            _score_plots(results, scored),
            "<h2>Poses</h2>",
            _pose_plots(results, scored),
        ]
    body += ["<h2>Parameters</h2>", _parameters(results)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _labels(results: Results) -> list[str]:
    return [entry.label for entry in results.structures]


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
        facts.append((f"{100 * plots.decided(chosen):.0f} %", "have a structure posterior above 0.95"))
    return '<div class="facts">' + "".join(f"<div><b>{value}</b>{text}</div>" for value, text in facts) + "</div>"


def _structures(results: Results, scored: np.ndarray) -> str:
    share, deviation = plots.population_shares(results.structure_posterior[:, scored])
    cc, log_likelihood = results.of_best("cc"), results.of_best("integrated")
    rows = []
    for k, label in enumerate(_labels(results)):
        own = results.best_structure == k + 1
        median = [f"{np.median(values[own]):.4g}" if own.any() else "" for values in (cc, log_likelihood)]
        rows.append(
            [
                str(k + 1),
                label,
                f"{int(own.sum()):,}",
                f"{100 * share[k]:.1f} ± {100 * deviation[k]:.1f}",
                *median,
            ]
        )
    header = [
        "number",
        "structure",
        "best for",
        "expected share (%)",
        "median cross-correlation",
        "median logLikelihood (nat)",
    ]
    return _table(header, rows, numbers=(0, 2, 3, 4, 5))


def _structure_plots(results: Results, scored: np.ndarray) -> str:
    if len(results.structures) < 2:
        return ""
    figures = [
        (
            plots.populations(results.structure_posterior[:, scored], _labels(results)),
            "Expected share of each structure among these particles; the bars are the standard deviation "
            "that the posteriors leave.",
        ),
        (
            plots.posterior_histogram(results.of_best("structure_posterior")[scored]),
            "Posterior of the best structure. Particles on the left are undecided.",
        ),
    ]
    if len(results.structures) == 2:
        figures.append(
            (
                plots.log_odds(results.integrated[:, scored], _labels(results)),
                "Difference of the integrated log-likelihoods; the far ends are gathered in the last bars.",
            )
        )
    return _plots(figures)


def _score_plots(results: Results, scored: np.ndarray) -> str:
    scores = {
        "cross-correlation": (
            "cc",
            "Correlation with the best projection, inside mask and resolution limit.",
        ),
        "logLikelihood (nat)": (
            "integrated",
            "Evidence at any pose over that of an image without a particle.",
        ),
        "logLikelihoodMax (nat)": ("max", "The same at the best pose alone."),
        "posePosterior": ("pose_posterior", "Probability that the pose lies close to the best one."),
        "poseEntropy (nat)": (
            "pose_entropy",
            "Information gained on the pose; 0 says that any pose is as good.",
        ),
        "scale": ("scale", "Contrast: the factor of the projection in the image."),
    }
    best, labels = results.best_structure[scored] - 1, _labels(results)
    return _plots(
        [
            (plots.score_histogram(title, results.of_best(name)[scored], best, labels), meaning)
            for title, (name, meaning) in scores.items()
        ]
    )


def _pose_plots(results: Results, scored: np.ndarray) -> str:
    best = results.best_structure[scored] - 1
    rot, tilt, x, y = (results.of_best(name)[scored] for name in ("rot", "tilt", "origin_x", "origin_y"))
    return _plots(
        [
            (
                plots.view_distribution(rot, tilt, best, _labels(results)),
                "Viewing directions on an equal-area chart: uniform views fill it evenly.",
            ),
            (
                plots.shift_distribution(x, y),
                "Origins of the best poses. Points along an edge say that the shift range was too small.",
            ),
        ]
    )


def _parameters(results: Results) -> str:
    rows = [[name, _text(value)] for name, value in {**results.parameters, **results.versions}.items()]
    return _table(["parameter", "value"], rows)


def _text(value: Any) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _table(header: list[str], rows: Iterable[list[str]], numbers: tuple[int, ...] = ()) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        kinds = (' class="number"' if column in numbers else "" for column in range(len(row)))
        lines.append("".join(f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _plots(figures: list[tuple[Figure, str]]) -> str:
    parts = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{_png(figure)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for figure, caption in figures
    ]
    return f'<div class="plots">{"".join(parts)}</div>'


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.set_dpi(130)
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 1})  # savefig would lay the figure out twice
    return base64.b64encode(buffer.getvalue()).decode("ascii")
