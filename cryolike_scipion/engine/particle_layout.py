"""The input tables of particles in RELION 3.1's layout, as text: what the writer adds its columns to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cryosparc_reader import VERSION_COMMENT
from .errors import InputError
from .particle_table import ABERRATION_LABELS
from .particles import OpticsGroup, ParticleDocument, Particles
from .stack_paths import ROOT_NUMBER_LABEL, ROOT_TABLE, file_part
from .star_file import StarFile, StarTable, loop_lines, quote, split_row, unquote

_OPTICS = (
    "rlnOpticsGroup",
    "rlnOpticsGroupName",
    "rlnImagePixelSize",
    "rlnImageSize",
    "rlnImageDimensionality",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
# What RELION takes for a column that an optics table lacks: needed where tables of several files become one.
_OPTICS_DEFAULTS = {
    "rlnImageDimensionality": "2",
    "rlnBeamTiltX": "0",
    "rlnBeamTiltY": "0",
    "rlnOddZernike": "[0,0,0,0,0,0]",
    "rlnEvenZernike": "[0,0,0,0,0,0,0,0,0]",
    "rlnMagMat00": "1",
    "rlnMagMat01": "0",
    "rlnMagMat10": "0",
    "rlnMagMat11": "1",
}
_MISSING: dict[str, Callable[[OpticsGroup], str]] = {
    "rlnImagePixelSize": lambda group: f"{group.pixel_size:.6f}",
    "rlnImageSize": lambda group: str(group.box),
    "rlnAmplitudeContrast": lambda group: f"{group.amplitude_contrast:.6f}",
}
# What stands for a particle column that one of several files lacks, where 0 would say something wrong.
_PARTICLE_DEFAULTS: dict[str, Callable[[OpticsGroup], str]] = {
    **_MISSING,
    "rlnVoltage": lambda group: f"{group.voltage_kv:.6f}",
    "rlnSphericalAberration": lambda group: f"{group.cs_mm:.6f}",
    "rlnMagnification": lambda group: "10000",
    "rlnDetectorPixelSize": lambda group: f"{group.pixel_size:.6f}",
    "rlnImageDimensionality": lambda group: "2",
    "rlnCtfScalefactor": lambda group: "1",
    "cryolikeImageSign": lambda group: "1",
}


@dataclass(frozen=True)
class Layout:
    """Text of a STAR file around its particle rows.

    Attributes
    ----------
    before : list of str
        Lines up to the particle table's ``data_`` line and the blank line after it.
    labels : list of str
        Columns of the particle table.
    rows : list of str
        A row a particle, in their order.
    after : list of str
        Lines after the rows.
    roots : tuple of Path
        Folders in which relative image names were found.
    """

    before: list[str]
    labels: list[str]
    rows: list[str]
    after: list[str]
    roots: tuple[Path, ...]


def layout_of(particles: Particles) -> Layout:
    """Lay the sources of particles out as one RELION 3.1 file.

    A single file with an optics table keeps every line but the rows. A single one-table file keeps its lines
    and gets an optics table before its particles. Several files become one optics and one particle table,
    with their other tables behind them; particle columns that one of the files lacks are filled (from
    its optics, or else with 0 or ``None``).

    Raises
    ------
    InputError
        If the optics tables of several files have columns that cannot be filled.
    """
    if len(particles.documents) == 1:
        if particles.document.optics is not None:
            return _two_tables(particles)
        return _one_table(particles)
    return _several(particles)


def _two_tables(particles: Particles) -> Layout:
    document = particles.document
    star, table, optics = document.star, document.particles, document.optics
    assert optics is not None
    rows = [table.rows[row - 1] for row in particles.row]
    before = _lines(star, 0, table.body_line)
    after = _lines(star, table.end_line, len(star.lines))
    columns = _optics_of(particles, 0)
    if set(columns) - set(optics.labels):
        # From options or the stacks' headers: without these values RELION could not use the file.
        block = _loop(list(columns), [" ".join(map(quote, row)) for row in zip(*columns.values())])
        start, end = optics.body_line, optics.end_line
        if optics.first_line < table.first_line:
            before = [*_lines(star, 0, start), *block, *_lines(star, end, table.body_line)]
        else:
            after = [*_lines(star, table.end_line, start), *block, *_lines(star, end, len(star.lines))]
    return Layout(before, list(table.labels), rows, after, document.roots)


def _one_table(particles: Particles) -> Layout:
    document = particles.document
    star, table = document.star, document.particles
    labels, rows = _with_optics_columns(particles, 0)
    shared = _aberration_columns(particles, 0)
    groups = [" ".join([row, *(texts[g] for texts in shared.values())]) for g, row in enumerate(_optics_rows(particles))]
    optics = loop_lines("optics", [*_OPTICS, *shared], groups)
    before = [
        *_lines(star, 0, table.first_line),
        VERSION_COMMENT,
        "",
        *optics,
        VERSION_COMMENT,
        "",
        "data_particles",
        *_lines(star, table.first_line + 1, table.body_line),
    ]
    return Layout(before, labels, rows, _lines(star, table.end_line, len(star.lines)), document.roots)


def _several(particles: Particles) -> Layout:
    tables = [
        _with_optics_columns(particles, s) if document.optics is None else _renumbered(particles, s)
        for s, document in enumerate(particles.documents)
    ]
    optics_labels, optics_rows, numbers = _joined_optics(particles)
    roots = tuple(dict.fromkeys(root for document in particles.documents for root in document.roots))
    labels = list(dict.fromkeys(label for own, _ in tables for label in own if label != ROOT_NUMBER_LABEL))
    fill = _fillers(labels, tables)
    rows = [""] * len(particles)
    for source, (own, texts) in enumerate(tables):
        place = {label: i for i, label in enumerate(own)}
        group = place["rlnOpticsGroup"]
        members = [i for i, s in enumerate(particles.source_index) if s == source]
        for i, text in zip(members, texts):
            tokens = split_row(text)
            tokens[group] = numbers[source][unquote(tokens[group])]
            optics = particles.optics[particles.optics_index[i]]
            rows[i] = " ".join(tokens[place[k]] if k in place else fill[k](optics) for k in labels)
    if len(roots) > 1:
        labels.append(ROOT_NUMBER_LABEL)
        rows = [f"{row} {number}" for row, number in zip(rows, _root_numbers(particles, roots))]
    before = [
        VERSION_COMMENT,
        "",
        *loop_lines("optics", optics_labels, optics_rows),
        VERSION_COMMENT,
        "",
        "data_particles",
        "",
    ]
    return Layout(before, labels, rows, ["", *_further_tables(particles.documents)], roots)


def _root_numbers(particles: Particles, roots: Sequence[Path]) -> list[int]:
    """For each particle which folder its image name is relative to, from 1; 0 for none.

    Two files may use one relative name for two stacks, so the names alone do not tell.
    """
    known: dict[tuple[int, str], int] = {}
    numbers = []
    for stack, image in zip(particles.stack_index.tolist(), particles.image_names()):
        name = file_part(image.partition("@")[2] or image)
        if (stack, name) not in known:
            paths = [root / name for root in roots]
            path = particles.stacks[stack]
            known[stack, name] = 0 if os.path.isabs(name) or path not in paths else paths.index(path) + 1
        numbers.append(known[stack, name])
    return numbers


def _renumbered(particles: Particles, source: int) -> tuple[list[str], list[str]]:
    """Labels and rows of a source with an optics table; rlnOpticsGroup is there in any case."""
    table = particles.documents[source].particles
    rows = [table.rows[r - 1] for s, r in zip(particles.source_index, particles.row) if s == source]
    if "rlnOpticsGroup" in table.labels:
        return list(table.labels), rows
    group = _optics_of(particles, source)["rlnOpticsGroup"][0]
    return [*table.labels, "rlnOpticsGroup"], [f"{row} {group}" for row in rows]


def _with_optics_columns(particles: Particles, source: int) -> tuple[list[str], list[str]]:
    """Labels and rows of a one-table source, with its optics groups and its origins in Å."""
    table = particles.documents[source].particles
    members = [i for i, s in enumerate(particles.source_index) if s == source]
    added: dict[str, Callable[[int], str]] = {"rlnOpticsGroup": lambda i: str(particles.optics_index[i] + 1)}
    for axis, origin in (("X", particles.origin_x), ("Y", particles.origin_y)):
        if f"rlnOrigin{axis}" in table.labels:
            added[f"rlnOrigin{axis}Angst"] = lambda i, origin=origin: f"{origin[i]:.6f}"  # type: ignore[misc]
    fresh = {label: text for label, text in added.items() if label not in table.labels}
    labels = [*table.labels, *fresh]
    rows = []
    place = table.labels.index("rlnOpticsGroup") if "rlnOpticsGroup" in table.labels else None
    for i in members:
        row = table.rows[particles.row[i] - 1]
        if place is not None:
            tokens = split_row(row)
            tokens[place] = added["rlnOpticsGroup"](i)
            row = " ".join(tokens)
        elif "#" in row:
            row = " ".join(split_row(row))
        rows.append(" ".join([row, *(text(i) for text in fresh.values())]))
    return labels, rows


def _optics_rows(particles: Particles) -> list[str]:
    return [
        " ".join(
            [
                str(n),
                quote(g.name),
                f"{g.pixel_size:.6f}",
                str(g.box),
                "2",
                f"{g.voltage_kv:.6f}",
                f"{g.cs_mm:.6f}",
                f"{g.amplitude_contrast:.6f}",
            ]
        )
        for n, g in enumerate(particles.optics, 1)
    ]


def _aberration_columns(particles: Particles, source: int) -> dict[str, list[str]]:
    """Aberrations that a one-table source has in its rows, a text for each optics group: newer RELIONs ignore those in rows."""
    table = particles.documents[source].particles
    found = table.columns(ABERRATION_LABELS, particles.sources[source])
    mine = np.flatnonzero(particles.source_index == source)
    groups, first = np.unique(particles.optics_index[mine], return_index=True)
    row = dict(zip(groups.tolist(), (particles.row[mine[first]] - 1).tolist()))
    count = range(len(particles.optics))
    return {label: [texts[row[g]] if g in row else _OPTICS_DEFAULTS[label] for g in count] for label, texts in found.items()}


def _joined_optics(particles: Particles) -> tuple[list[str], list[str], list[dict[str, str]]]:
    """One optics table for several sources: labels, rows, and each source's old and new group numbers."""
    own = [_optics_of(particles, s) for s in range(len(particles.documents))]
    labels = list(dict.fromkeys(["rlnOpticsGroup", "rlnOpticsGroupName", *(k for c in own for k in c)]))
    groups: dict[tuple[str, ...], str] = {}
    numbers: list[dict[str, str]] = []
    for source, columns in enumerate(own):
        size = len(columns["rlnOpticsGroup"])
        columns.setdefault("rlnOpticsGroupName", [f"opticsGroup{n}" for n in columns["rlnOpticsGroup"]])
        for label in labels:
            if label not in columns:
                if label not in _OPTICS_DEFAULTS:
                    raise InputError(
                        f"the optics table lacks {label}, which that of another given file has",
                        particles.sources[source],
                        remedy="Join the files with relion_star_handler",
                    )
                columns[label] = [_OPTICS_DEFAULTS[label]] * size
        keys = list(zip(*(columns[label] for label in labels[1:])))
        numbers.append({})
        for old, key in zip(columns["rlnOpticsGroup"], keys):
            numbers[source][old] = groups.setdefault(key, _free_number(old, groups.values()))
    names: set[str] = set()
    rows = []
    for key, number in groups.items():
        name = key[0] if key[0] not in names else f"{key[0]}_{number}"
        names.add(name)
        rows.append(" ".join([number, quote(name), *map(quote, key[1:])]))
    return labels, rows, numbers


def _free_number(wanted: str, taken: Collection[str]) -> str:
    """The wanted group number, or else the smallest that is free."""
    return next(n for n in (wanted, *map(str, range(1, len(taken) + 2))) if n not in taken)


def _optics_of(particles: Particles, source: int) -> dict[str, list[str]]:
    """Columns of a source's optics table as text; made from the values where the source has none."""
    document = particles.documents[source]
    mine = np.flatnonzero(particles.source_index == source)
    if document.optics is None:
        used = np.unique(particles.optics_index[mine])
        rows = [split_row(_optics_rows(particles)[i]) for i in used]
        columns = {label: [unquote(row[i]) for row in rows] for i, label in enumerate(_OPTICS)}
        return columns | {label: [texts[g] for g in used] for label, texts in _aberration_columns(particles, source).items()}
    columns = document.optics.columns(document.optics.labels, document.star.path)
    groups = columns.setdefault("rlnOpticsGroup", [str(n) for n in range(1, len(document.optics.rows) + 1)])
    missing = {label: text for label, text in _MISSING.items() if label not in (*columns, *document.particles.labels)}
    if not missing:
        return columns
    own = document.particles.columns(["rlnOpticsGroup"], document.star.path).get("rlnOpticsGroup")
    for name, text in missing.items():
        value: dict[str, str] = {}
        for i in mine:
            number = groups[0] if own is None else own[particles.row[i] - 1]
            value.setdefault(number, text(particles.optics[particles.optics_index[i]]))
        columns[name] = [value.get(number, next(iter(value.values()))) for number in groups]
    return columns


def _fillers(labels: Sequence[str], tables: Iterable[tuple[list[str], list[str]]]) -> dict[str, Callable[[OpticsGroup], str]]:
    """For each column the text that stands where a source lacks it: a number where others have a number."""
    fill = dict(_PARTICLE_DEFAULTS)
    for label in labels:
        values = (split_row(rows[0])[own.index(label)] for own, rows in tables if label in own and rows)
        try:
            float(unquote(next(values, "0")))  # no particle of the files that have it may be left
            fill.setdefault(label, lambda group: "0")
        except ValueError:
            fill[label] = lambda group: "None"
    return fill


def _further_tables(documents: Iterable[ParticleDocument]) -> list[str]:
    """Lines of the tables that are neither particles nor optics, once where several files have the same."""
    texts: dict[str, list[str]] = {}
    names: set[str] = set()
    for document in documents:
        for table in document.star.tables:
            if table in (document.particles, document.optics) or table.name == ROOT_TABLE:
                continue
            name, number = table.name, 1
            key = "\n".join([name, *_body(document.star, table)])
            if key in texts:
                continue
            while name in names:
                number += 1
                name = f"{table.name}_{number}"
            names.add(name)
            texts[key] = [f"data_{name}", "", *_body(document.star, table), ""]
    return [line for lines in texts.values() for line in lines]


def _loop(labels: Sequence[str], rows: Iterable[str]) -> list[str]:
    return ["loop_", *(f"_{label} #{n}" for n, label in enumerate(labels, 1)), *rows]


def _body(star: StarFile, table: StarTable) -> list[str]:
    return star.lines[table.body_line : table.end_line]


def _lines(star: StarFile, start: int, end: int) -> list[str]:
    """Lines of a file without its table of image folders, which the writer makes anew."""
    roots = star.find(ROOT_TABLE)
    hidden = range(0) if roots is None else range(roots.first_line, roots.end_line)
    return [line for i, line in enumerate(star.lines[start:end], start) if i not in hidden]
