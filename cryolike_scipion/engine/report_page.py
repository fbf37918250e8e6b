"""A self-contained HTML page: no network, no script, every text escaped, pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["facts", "page", "parameter_table", "plots", "section", "table"]

_DPI = 110
_WIDE = 6.0  # inches; wider figures take a row of their own
_STYLE = """
:root { --ink: #1d2a33; --soft: #5c6b73; --line: #dde3e7; --back: #f6f8f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.facts div { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 9rem; }
.facts b { display: block; font-size: 1.35rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .8rem;
         margin-bottom: .8rem; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; }
figure img { width: 100%; height: auto; display: block; }
figure.wide { grid-column: 1 / -1; overflow-x: auto; }
figure.wide img { width: auto; min-width: min(100%, 36rem); max-width: 100%; margin: 0 auto; }
@media (max-width: 40rem) { figure.wide img { min-width: 36rem; } figure.wide figcaption { position: sticky; left: 0; } }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .4rem; text-align: left; }
.scroll { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; background: #fff; width: 100%; font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; min-width: 6rem; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


def page(title: str, lead: str, body: Iterable[str]) -> str:
    """The whole page.

    Parameters
    ----------
    title : its heading.
    lead : one sentence below it.
    body : HTML, made by the other functions of this module.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>{''.join(body)}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading with what stands below it."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Numbers that stand out, each with a few words."""
    return (
        '<div class="facts">'
        + "".join(f"<div><b>{html.escape(value)}</b>{html.escape(text)}</div>" for value, text in items)
        + "</div>"
    )


def table(header: list[str], rows: Iterable[list[str]], numbers: tuple[int, ...] = ()) -> str:
    """A table; the columns in `numbers` are aligned to the right."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        kinds = (' class="number"' if column in numbers else "" for column in range(len(row)))
        lines.append("".join(f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def parameter_table(values: dict[str, Any]) -> str:
    """Names and values of parameters."""
    return table(["parameter", "value"], [[name, _text(value)] for name, value in values.items()])


def _text(value: Any) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def plots(figures: Iterable[tuple[Figure, str]]) -> str:
    """Figures with their captions; wide ones alone in a row."""
    parts = []
    for figure, caption in figures:
        kind = ' class="wide"' if figure.get_figwidth() > _WIDE else ""
        parts.append(
            f'<figure{kind}><img alt="{html.escape(caption)}" src="data:image/png;base64,{_png(figure)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div class="plots">{"".join(parts)}</div>'


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.set_dpi(_DPI)
    # savefig would lay the figure out twice
    FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 1})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
