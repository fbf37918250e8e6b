"""Optics groups as the text of a table, as Scipion keeps them with a set: read, joined, and written.

A group is a dict of label to text, quoted as in the file, without its number.
"""

from .star import quoted
from .star_tables import parse_tables, unquoted

NAME, NUMBER = "rlnOpticsGroupName", "rlnOpticsGroup"
PIXEL = "rlnImagePixelSize"
_OPTICS = "optics"
_ORIGINAL_PIXEL = "rlnMicrographOriginalPixelSize"
_ONE = ("rlnMagMat00", "rlnMagMat11", "rlnCtfScalefactor")


def parse_groups(text, source="the optics groups of the input set"):
    """Return number to group.

    Raises
    ------
    ValueError
        If a row has more or fewer values than the table has columns, or a number that is none.
    """
    groups = {}
    for table in [each for each in parse_tables((text or "").splitlines(), source) if each.name == _OPTICS][:1]:
        for place, row in enumerate(table.rows, 1):
            group = dict(zip(table.labels, row))
            groups[int(unquoted(group.pop(NUMBER, str(place))))] = group
    return groups


def joined(groups, more):
    """Return the groups of a set and of a file whose particles come behind it, and the file's numbers in them.

    Parameters
    ----------
    groups, more : dict of number to group.

    Returns
    -------
    all_groups : dict of number to group
        The set's own keep their numbers.
    numbers : dict of int to int
        Number in the file to number in the set: that of the same group, or a new one.
    """
    everything = filled([*groups.values(), *more.values()])
    found = dict(zip(groups, everything))
    names = {unquoted(group.get(NAME, "")) for group in found.values()}
    numbers = {}
    for number, group in zip(more, everything[len(groups) :]):
        same = next((own for own in found if _same(found[own], group)), None)
        if same is None:
            same = max(found, default=0) + 1
            found[same] = dict(group, **{NAME: quoted(new_name(unquoted(group.get(NAME, f"opticsGroup{same}")), names))})
        numbers[number] = same
    return found, numbers


def _same(own, group):
    """Whether a set's group is one of a file, perhaps with the name that it got when it was joined."""
    one, other = (unquoted(each.get(NAME, "")) for each in (own, group))
    suffix = one[len(other) + 1 :] if one.startswith(other + "_") else ""
    return (one == other or suffix.isdigit()) and all(own[label] == group[label] for label in own if label != NAME)


def new_name(name, names):
    """Return a name that is not among `names`, and add it to them."""
    found, count = name, 1
    while found in names:
        count += 1
        found = f"{name}_{count}"
    names.add(found)
    return found


def filled(groups):
    """Return groups that all have the same labels: what one lacks means what programs take where it is not there."""
    labels = list(dict.fromkeys(label for group in groups for label in group))
    like = {label: next(group[label] for group in groups if label in group) for label in labels}
    return [{label: group.get(label, neutral(label, like[label], group)) for label in labels} for group in groups]


def neutral(label, like, group=None):
    """Return the text that says nothing in a column.

    Parameters
    ----------
    label : the column.
    like : another text of this column.
    group : the optics group that lacks it, if it is a column of these.
    """
    if label == _ORIGINAL_PIXEL and group and PIXEL in group:
        return group[PIXEL]
    bare = unquoted(like)
    if bare.startswith("[") and bare.endswith("]"):  # coefficients of aberrations
        return like.replace(bare, "[" + ",".join("0" for _ in bare[1:-1].split(",")) + "]")
    try:
        float(bare)
    except ValueError:
        return "None"
    return "1" if label in _ONE else "0"


def says_nothing(label, text):
    """Whether a text means the same as if the column were not there."""
    empty, bare = neutral(label, text), unquoted(text)
    try:
        return label != _ORIGINAL_PIXEL and float(bare) == float(empty)
    except ValueError:
        return text == empty


def groups_text(groups):
    """Return groups with the same labels, of number to group, as the text of a table."""
    labels = list(next(iter(groups.values())))
    lines = ["\n# version 30001\n", "data_" + _OPTICS, "", "loop_"]
    lines += [f"_{label} #{place}" for place, label in enumerate([NUMBER, *labels], 1)]
    lines += [" ".join([str(number), *(group[label] for label in labels)]) for number, group in groups.items()]
    return "\n".join(lines) + "\n\n"
