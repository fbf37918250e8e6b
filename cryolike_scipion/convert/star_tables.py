"""Whole STAR files with the text of every value, for what has to be handed on as it is."""

import re
from typing import List, NamedTuple

_WORD = re.compile(r"""'(?:[^']|'(?=\S))*'(?!\S)|"(?:[^"]|"(?=\S))*"(?!\S)|\S+""")


class StarTable(NamedTuple):
    """A table of a STAR file.

    Attributes
    ----------
    name : without ``data_``.
    labels : columns, without the leading underscore.
    rows : the texts of each row, quoted as in the file; a list of pairs is one row.
    lines : the table's lines after that with its name, without line ends.
    """

    name: str
    labels: List[str]
    rows: List[List[str]]
    lines: List[str]


def read_tables(path):
    """Read all tables of a STAR file: list of StarTable.

    Raises
    ------
    ValueError
        If a row has more or fewer values than its table has columns; the text names the file and the line.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return parse_tables(stream, path)


def parse_tables(lines, source):
    """Read all tables from the lines of a STAR file, which messages call `source`; see :func:`read_tables`."""
    tables, loop = [], False
    for count, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        words = split(line)
        if len(words) == 1 and words[0].startswith("data_"):
            tables.append(StarTable(words[0][len("data_") :], [], [], []))
            loop = False
            continue
        if not tables:
            continue
        table = tables[-1]
        table.lines.append(line)
        if words == ["loop_"]:
            loop = True
        elif words and words[0].startswith("_") and len(words) <= 2 and not (loop and table.rows):
            table.labels.append(words[0][1:])
            if not loop and len(words) == 2:
                table.rows[:] = [(table.rows[0] if table.rows else []) + [words[1]]]
        elif words:
            if len(words) != len(table.labels):
                raise ValueError(f"{source}, line {count}: {len(words)} values for {len(table.labels)} columns")
            table.rows.append(words)
    return tables


def split(line):
    """Split a line into its values, quotes kept; a comment at its end is dropped."""
    if "#" not in line and "'" not in line and '"' not in line:
        return line.split()
    words = []
    for word in _WORD.findall(line):
        if word.startswith("#"):
            break
        words.append(word)
    return words


def unquoted(text):
    """Return a value without the quotes around it, if it has any."""
    return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] else text
