"""Tables in STAR files: just what the two halves exchange.

Values keep their text, because a STAR library that guesses types from the first row would retype or round
them.  A text that STAR cannot hold in one word or between quotes (a line feed) is refused; file names that
are such are linked under a plain name instead (:mod:`cryolike_scipion.convert.locations`).
"""

import os
import re
from typing import Dict, List, Tuple

_PLAIN = re.compile(r"[^\s'\"#_;$\[\]]\S*\Z")
_RESERVED = re.compile(r"(data_|loop_|save_|stop_|global_)", re.IGNORECASE)
_WORD = re.compile(r"""'(?:[^']|'(?=\S))*'(?=\s|$)|"(?:[^"]|"(?=\S))*"(?=\s|$)|\S+""")


def quoted(text):
    """Return `text` as one STAR value.

    Raises
    ------
    ValueError
        If it holds a line feed, or both kinds of quotes in a way that STAR cannot write.
    """
    if _PLAIN.match(text) and not _RESERVED.match(text):
        return text
    if "\n" not in text and "\r" not in text:
        for quote in "'\"":
            if not re.search(quote + r"(\s|$)", text):
                return quote + text + quote
    raise ValueError(f"{text!r} cannot be written into a STAR file")


def number(value):
    """Return a number as the shortest text that reads back as the same number."""
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def write_star(path, tables):
    """Write a STAR file; it takes its name only when it is complete, and nothing is left of a failed one.

    Parameters
    ----------
    path : the file.
    tables : iterable of (name, columns, rows), or str
        Names without ``data_`` and without the leading underscore; a row is a list of texts, already quoted,
        or a whole line. A text is a whole table, written as it is.
    """
    temporary = path + ".tmp"
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write("\n# version 30001\n")
            for table in tables:
                if isinstance(table, str):
                    stream.write("\n" + table)
                    continue
                name, columns, rows = table
                stream.write(f"\ndata_{name}\n\nloop_\n")
                stream.writelines(f"_{column} #{i + 1}\n" for i, column in enumerate(columns))
                for row in rows:
                    stream.write(row if isinstance(row, str) else " ".join(row) + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.remove(temporary)
        raise


def read_columns(path, table, columns):
    """Read some columns of a table in a file; see :func:`parse_columns`."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return parse_columns(stream, table, columns, path)


def parse_columns(lines, table, columns, source):
    """Read some columns of a table.

    Parameters
    ----------
    lines : iterable of the lines of a STAR file.
    table : name of its block, without ``data_``.
    columns : names, without the leading underscore.
    source : what to call the file in an error message.

    Returns
    -------
    dict
        Column name to list of texts, a text a row; columns that the table lacks are left out.

    Raises
    ------
    ValueError
        If the table is not there, or a row has too few values; the text names the file and the line.
    """
    numbered = enumerate(lines, 1)
    if not any(line.strip() == "data_" + table for _, line in numbered):
        raise ValueError(f"{source}: there is no table data_{table}")
    names: List[str] = []
    found: Dict[str, List[str]] = {}
    wanted: List[Tuple[int, List[str]]] = []
    for count, line in numbered:
        line = line.strip()
        if line.startswith("data_"):
            break
        if not line or line.startswith("#") or line == "loop_":
            continue
        if line.startswith("_"):
            name = line.split()[0][1:]
            if name in columns:
                found[name] = []
                wanted.append((len(names), found[name]))
            names.append(name)
            continue
        words = _words(line)
        if len(words) != len(names):
            raise ValueError(f"{source}, line {count}: {len(words)} values for {len(names)} columns")
        for index, texts in wanted:
            texts.append(words[index])
    return found


def _words(line):
    if "'" not in line and '"' not in line:
        return line.split()
    return [word[1:-1] if word[0] in "'\"" and word[-1] == word[0] and len(word) > 1 else word for word in _WORD.findall(line)]
