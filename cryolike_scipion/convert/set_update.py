"""New values of an attribute of a set's items, without making an object of each."""

import contextlib
import sqlite3

_PATIENCE = 300.0  # seconds to wait while the set is read


def write_attribute(filename, attribute, values):
    """Replace an attribute of some items, of all of them or of none.

    Parameters
    ----------
    filename : the set's sqlite file.
    attribute : name of one that the set has, such as ``_cryolike_logRatioZ``.
    values : dict
        Id of the item to its value, a number or text.
    """
    with contextlib.closing(sqlite3.connect(filename, timeout=_PATIENCE)) as database, database:
        found = database.execute("SELECT column_name FROM Classes WHERE label_property = ?", (attribute,)).fetchone()
        if found is None:
            raise KeyError(f"{filename} has no attribute {attribute}")
        rows = [(value, number) for number, value in values.items()]
        database.executemany(f"UPDATE Objects SET {found[0]} = ? WHERE id = ?", rows)
