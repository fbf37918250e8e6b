"""STAR files as RELION writes them, with every value's original text.

RELION's dialect is read line by line: a table begins at ``data_NAME``; a loop has one row a line; a value
with blanks is quoted. Unlike a CIF parser this accepts what RELION accepts: letters beyond ASCII, and
unquoted values such as ``data_1/mic.mrc`` or ``[0.1,0.2]``. Nothing is retyped, so text that is not touched
is written back as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

_BLANK = " \t\r\x0b\x0c"
_TOKEN = re.compile(r"'(?:[^']|'(?=\S))*'(?!\S)|\"(?:[^\"]|\"(?=\S))*\"(?!\S)|\S+", re.ASCII)


@dataclass(frozen=True)
class StarTable:
    """One table of a STAR file.

    Attributes
    ----------
    name : str
        What follows ``data_``; may be empty.
    labels : tuple of str
        Column names without the leading underscore.
    rows : list of str
        Text of each row, its values still quoted. A list of ``_key value`` pairs is one row.
    first_line, body_line, end_line : int
        Indices into :attr:`StarFile.lines`: the ``data_`` line, the first line of labels (``loop_`` or the
        first pair), and the line after the last row.
    """

    name: str
    labels: tuple[str, ...]
    rows: list[str]
    first_line: int
    body_line: int
    end_line: int

    def columns(self, wanted: Iterable[str], file: str | os.PathLike[str] | None = None) -> dict[str, list[str]]:
        """Values of some columns as text, unquoted.

        Parameters
        ----------
        wanted : iterable of str
            Labels; those that the table lacks are left out of the answer.
        file : path, optional
            Named in errors.

        Returns
        -------
        dict of label to list of str
            One text a row.

        Raises
        ------
        InputError
            If a row has more or fewer values than the table has columns.
        """
        present = [label for label in wanted if label in self.labels]
        places = [self.labels.index(label) for label in present]
        values: list[list[str]] = [[] for _ in present]
        width = len(self.labels)
        for number, row in enumerate(self.rows, 1):
            tokens = split_row(row)
            if len(tokens) != width:
                table = self.name or "(unnamed)"
                raise InputError(
                    f"the row has {len(tokens)} values, the table {table} has {width} columns",
                    file,
                    number,
                    "Correct the row, or write the file again with the program that made it",
                )
            for place, column in zip(places, values):
                column.append(unquote(tokens[place]))
        return dict(zip(present, values))


@dataclass(frozen=True)
class StarFile:
    """A parsed STAR file.

    Attributes
    ----------
    path : Path
        Where it was read.
    lines : list of str
        The file's lines without line ends. Bytes that are not UTF-8 are surrogate escapes, so they survive.
    tables : tuple of StarTable
        In the order of the file.
    """

    path: Path
    lines: list[str]
    tables: tuple[StarTable, ...]

    def find(self, name: str) -> StarTable | None:
        """The first table of that name, or ``None``."""
        return next((table for table in self.tables if table.name == name), None)


def read_star(path: str | os.PathLike[str]) -> StarFile:
    """Read a STAR file.

    Raises
    ------
    InputError
        If the file cannot be read, is not a STAR file, or a table names a column twice.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", path, remedy="Check its name and its rights") from None
    return parse_star(data.decode("utf-8", "surrogateescape"), path)


def parse_star(text: str, path: str | os.PathLike[str]) -> StarFile:
    """Parse the text of a STAR file; `path` is named in errors. See :func:`read_star`."""
    path = Path(path)
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    tables: list[_Builder] = []
    for index, line in enumerate(lines):
        content = line.strip(_BLANK)
        if not content or content[0] == "#":
            continue
        if content.startswith("data_") and len(split_row(content)) == 1:
            tables.append(_Builder(content.split()[0][len("data_") :], index))
        elif not tables:
            raise InputError(
                f"line {index + 1} is not part of a STAR table ('{content[:40]}')",
                path,
                remedy="Give a RELION STAR file, whose tables begin with 'data_'",
            )
        elif not tables[-1].add(content, index):
            tables.append(_Builder(tables[-1].name, index))
            if not tables[-1].add(content, index):
                raise InputError(
                    f"line {index + 1} belongs to no column ('{content[:40]}')",
                    path,
                    remedy="A loop begins with 'loop_', then its '_labels', then its rows",
                )
    built = tuple(table.build(path) for table in tables)
    return StarFile(path, lines, built)


class _Builder:
    """A table while its lines come in."""

    def __init__(self, name: str, first_line: int) -> None:
        self.name = name
        self.first_line = self.body_line = self.end_line = first_line
        self.loop = False
        self.labels: list[str] = []
        self.rows: list[str] = []
        self.values: list[str] = []

    def add(self, content: str, index: int) -> bool:
        """Take a line; False where it cannot belong to this table."""
        tokens = split_row(content)
        if tokens == ["loop_"] and not (self.loop and self.labels):
            if self.values:
                return False
            self.loop = True
            self.body_line = index
        elif tokens == ["loop_"]:
            return False
        elif self.loop and not self.rows and tokens[0][0] == "_" and len(tokens) == 1:
            self.labels.append(tokens[0][1:])
        elif self.loop and self.labels:
            self.rows.append(content)
        elif not self.loop and tokens[0][0] == "_" and len(tokens) == 2:
            if not self.labels:
                self.body_line = index
            self.labels.append(tokens[0][1:])
            self.values.append(tokens[1])
        else:
            return False
        self.end_line = index + 1
        return True

    def build(self, path: Path) -> StarTable:
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise InputError(
                    f"the table {self.name or '(unnamed)'} names the column _{label} twice",
                    path,
                    remedy="Remove one of the two columns",
                )
        rows = self.rows if self.loop else [" ".join(self.values)] if self.values else []
        return StarTable(self.name, tuple(self.labels), rows, self.first_line, self.body_line, self.end_line)


def split_row(row: str) -> list[str]:
    """Split a row into its values, quotes kept; a comment at its end is dropped."""
    if row.isascii() and "'" not in row and '"' not in row and "#" not in row:
        return row.split()
    tokens: list[str] = []
    for match in _TOKEN.finditer(row):
        if match[0][0] == "#":
            break
        tokens.append(match[0])
    return tokens


def unquote(token: str) -> str:
    """The value of a token: without the quotes around it, if it has any."""
    if len(token) >= 2 and token[0] in "'\"" and token[-1] == token[0]:
        return token[1:-1]
    return token


def quote(value: str) -> str:
    """Write a text so that RELION, and :func:`unquote`, read the same text back.

    Raises
    ------
    InputError
        If no STAR file can hold it: a line break, or blanks together with both kinds of quotes.
    """
    if "\n" in value or "\r" in value:
        raise InputError(
            f"a STAR file cannot hold the line break in {value!r}",
            remedy="Rename the file without line breaks",
        )
    if value and split_row(value) == [value] and value[0] not in "_#'\"" and unquote(value) == value:
        return value
    for mark in "\"'":
        if mark not in value:
            return f"{mark}{value}{mark}"
    raise InputError(
        f"a STAR file cannot hold blanks together with both kinds of quotes ({value!r})",
        remedy="Rename the file",
    )


def loop_lines(name: str, labels: Sequence[str], rows: Iterable[str]) -> list[str]:
    """Lines of a table in RELION's layout: the ``data_`` line, a blank line, the loop and a blank line."""
    head = [f"data_{name}", "", "loop_", *(f"_{label} #{n}" for n, label in enumerate(labels, 1))]
    return [*head, *rows, ""]
