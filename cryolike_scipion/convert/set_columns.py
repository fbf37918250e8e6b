"""Attributes of all items of a set at once, without making an object of each."""

import contextlib
import sqlite3

_PATIENCE = 300.0  # seconds to wait while the set is being written: long on a shared disk


def read_attributes(filename, attributes):
    """Read some attributes of the enabled items of a set.

    Parameters
    ----------
    filename : the set's sqlite file.
    attributes : names, such as ``_cryolike_logLikelihood``.

    Returns
    -------
    dict
        ``"id"`` and each attribute that the set has, to the list of its values in the order of ids.
    """
    with contextlib.closing(sqlite3.connect(f"file:{_quoted(filename)}?mode=ro", uri=True, timeout=_PATIENCE)) as database:
        stored = dict(database.execute("SELECT label_property, column_name FROM Classes"))
        names = [name for name in attributes if name in stored]
        wanted = ", ".join(["id"] + [stored[name] for name in names])
        rows = database.execute(f"SELECT {wanted} FROM Objects WHERE enabled = 1 ORDER BY id").fetchall()
    return {name: [row[column] for row in rows] for column, name in enumerate(["id"] + names)}


def _quoted(path):
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
