"""Write particles as RELION 3.1 STAR files that keep every value of the input as its original text.

What is kept: rows in the order of the particles, every column (unknown ones too), comments and further
tables. Columns that are overwritten keep their old text as ``cryolikeInput…``. Image names stay as they were:
where they are relative to the RELION project, RELION finds the images when it is started there, as with the
input file. For our own programs a table ``cryolike_images`` names the folders in which the images were found.

A one-table file (RELION 3.0) becomes a file with an optics table; its magnification columns stay, and origins
in pixels get companions in Å.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import quote as percent_encode

import numpy as np

from .atomic import atomic_path
from .particle_layout import Layout, layout_of
from .particles import Particles
from .stack_paths import ROOT_LABEL, ROOT_TABLE
from .star_file import loop_lines, quote, split_row

# Pointers to the cache of polar coefficients: a stale pointer is replaced, not kept.
_NOT_KEPT = frozenset({"cryolikeCoefficients", "cryolikeCoefficientsHash"})
# Writing the first makes the second wrong, so it goes to cryolikeInput… too.
_SUPERSEDED = {"rlnOriginXAngst": "rlnOriginX", "rlnOriginYAngst": "rlnOriginY"}


def write_particles(
    path: str | os.PathLike[str],
    particles: Particles,
    columns: Mapping[str, Sequence[object] | np.ndarray],
    *,
    keep_overwritten: bool = True,
) -> None:
    """Write a STAR file of the particles with new columns, atomically.

    Parameters
    ----------
    path : path
        The file to write.
    particles : Particles
        Rows to write, in this order; several sources become one table.
    columns : mapping of label to sequence [M]
        Labels without the underscore. Floats are written with six decimals, integers as they are, texts
        quoted where they need it. A column that the input has keeps its place and gets the new values; others
        follow the input's.
    keep_overwritten : bool
        Keep the old values of overwritten columns as ``cryolikeInput…`` columns, which come last: the label
        without ``rln`` or ``cryolike``, and with a number where the input already has that column.

    Raises
    ------
    InputError
        If a row cannot be read, or several sources cannot be put into one optics table.
    ValueError
        If a column has not one value for each particle, or a value is not finite.
    """
    layout = layout_of(particles)
    texts = {label: _format(label, values, len(particles)) for label, values in columns.items()}
    plan = _Plan.make(layout.labels, list(texts), keep_overwritten)
    body = ["loop_", *(f"_{label} #{n}" for n, label in enumerate(plan.labels, 1))]
    lines = chain(layout.before, body, _rows(layout, plan, texts), _after(layout))
    with atomic_path(path) as temporary:
        _write(temporary, lines)


@dataclass(frozen=True)
class _Plan:
    """Which columns the output has.

    Attributes
    ----------
    labels : all columns of the output.
    replaced : place in the row, label: input columns that get new values.
    appended : labels of the columns that the input lacks.
    kept : places whose old text is repeated at the end of the row.
    """

    labels: list[str]
    replaced: list[tuple[int, str]]
    appended: list[str]
    kept: list[int]

    @classmethod
    def make(cls, given: Sequence[str], new: list[str], keep_overwritten: bool) -> _Plan:
        labels = list(given)
        place = {label: i for i, label in enumerate(given)}
        replaced = [(place[label], label) for label in new if label in place]
        appended = [label for label in new if label not in place]
        taken = {*given, *new}
        for label in new:
            old = _SUPERSEDED.get(label)
            if old in place:
                labels[place[old]] = _kept_label(old, taken)
        kept = [place[label] for label in new if label in place and label not in _NOT_KEPT] if keep_overwritten else []
        labels += appended
        labels += [_kept_label(given[i], taken) for i in kept]
        return cls(labels, replaced, appended, kept)


def _kept_label(label: str, taken: set[str]) -> str:
    """The name under which an overwritten column is kept; added to `taken`."""
    stem = label.removeprefix("rln").removeprefix("cryolike")
    name, number = f"cryolikeInput{stem}", 1
    while name in taken:
        number += 1
        name = f"cryolikeInput{number}{stem}"
    taken.add(name)
    return name


def _format(label: str, values: Sequence[object] | np.ndarray, count: int) -> list[str]:
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"the column {label} has shape {array.shape}, not ({count},)")
    if array.dtype.kind == "f":
        if not np.all(np.isfinite(array)):
            raise ValueError(f"the column {label} has values that are not finite: RELION would read them as 0")
        return [f"{value:.6f}" for value in array.tolist()]
    if array.dtype.kind in "iub":
        return [str(int(value)) for value in array.tolist()]
    return [quote(str(value)) for value in values]


def _rows(layout: Layout, plan: _Plan, texts: Mapping[str, list[str]]) -> Iterator[str]:
    added = [texts[label] for label in plan.appended]
    replaced = [(place, texts[label]) for place, label in plan.replaced]
    for i, row in enumerate(layout.rows):
        tokens = split_row(row) if replaced or "#" in row else [row]
        kept = [tokens[place] for place in plan.kept]
        for place, column in replaced:
            tokens[place] = column[i]
        yield " ".join([*tokens, *(column[i] for column in added), *kept])


def _after(layout: Layout) -> list[str]:
    lines = list(layout.after)
    while lines and not lines[-1].strip():
        lines.pop()
    lines.append("")
    if layout.roots:
        lines += loop_lines(ROOT_TABLE, [ROOT_LABEL], [_encode(root) for root in layout.roots])
    return lines


def _encode(root: Path) -> str:
    """A folder percent-encoded as in a URL: any name becomes one word of ASCII."""
    return percent_encode(os.fsencode(root), safe="/")


def _write(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
