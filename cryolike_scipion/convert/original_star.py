"""What Scipion's importers drop, read from the STAR file that the particles were imported from.

A set keeps one voltage, one pixel size and few of a STAR file's columns. The file still has the values of every optics group,
scores of earlier programs and whatever else a row had, so that it all can go to the engine and come back in its
``particles.star``. Particles find their rows by their images, whatever links and folders lie between.
"""

import os
from typing import Dict, List

from .optics_groups import neutral
from .star import number
from .star_tables import read_tables, unquoted

_IMAGE, _GROUP = "rlnImageName", "rlnOpticsGroup"
_OPTICS = "optics"
SOURCE_IMAGE = "cryolikeSourceImageName"
# Ours, of an earlier run on another machine or set: they would be wrong here.
_STALE = ("cryolikeItemId", "cryolikeCoefficients", "cryolikeCoefficientsHash", "cryolikeImageRootNumber", SOURCE_IMAGE)
_STALE_TABLES = ("cryolike_images",)
_SAME = 1e-9  # relative: Scipion keeps numbers in double precision
VALUES = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")
_DETECTOR = ("rlnDetectorPixelSize", "rlnMagnification")


def find_star(protocol, particles):
    """Return the STAR file that a set goes back to, None if there is none to be found.

    Parameters
    ----------
    protocol : any protocol of the project.
    particles : SetOfParticles

    Notes
    -----
    The set's protocol is followed to what its particles came from: the file given to an import of RELION's particles, the one
    that cryoSPARC's import makes of a ``.cs`` file, or that of *import particles*.
    """
    project, seen = protocol.getProject(), set()
    wanted = [particles.getObjParentId()]
    while wanted and project is not None:
        number_ = wanted.pop(0)
        if number_ is None or number_ in seen:
            continue
        seen.add(number_)
        parent = project.getProtocol(number_, fromRuns=False)
        found = _star_of(parent)
        if found:
            return found
        for _, pointer in parent.iterInputAttributes():
            if pointer.get() is not None and hasattr(pointer.get(), "getObjParentId"):
                source = pointer.getObjValue()
                wanted.append(source.getObjId() if hasattr(source, "iterInputAttributes") else pointer.get().getObjParentId())
    return None


def _star_of(protocol):
    """Return the STAR file of an import, None for any other protocol and where it is not there any more."""
    given = protocol.getAttributeValue("starFile") if protocol.hasAttribute("starFile") else None
    names = [given, protocol._getExtraPath("output.star"), protocol._getExtraPath("files", "000001.star")]
    more = protocol._getExtraPath("files", "000002.star")  # several files have no one order of rows
    if not given and not hasattr(protocol, "files") and "mport" not in protocol.getClassName():
        return None
    if protocol.getAttributeValue("dataStreaming", False):  # more files may come, and what was written must stay the same
        return None
    return next((name for name in names if name and os.path.isfile(name) and not os.path.exists(more)), None)


class OriginalStar:
    """A STAR file of particles, by the images of its rows.

    Parameters
    ----------
    path : the file.
    provided : columns that the sets themselves provide, as a rule.

    Attributes
    ----------
    path : the file.
    tables : list of str
        Further tables, as they are.
    missed : set of (int, str)
        Images (number and stack) that were looked up and that the file does not have.

    Raises
    ------
    ValueError
        If it is not a STAR file of particles.
    """

    def __init__(self, path, provided):
        self.path, self.missed = path, set()
        tables = {table.name: table for table in reversed(read_tables(path))}
        optics = tables.get(_OPTICS)
        with_images = [table for table in tables.values() if table is not optics and _IMAGE in table.labels]
        if not with_images:
            raise ValueError(f"{path}: no table has the column {_IMAGE}")
        particles = tables["particles"] if tables.get("particles") in with_images else with_images[-1]
        self._rows, self._place = particles.rows, {label: i for i, label in enumerate(particles.labels)}
        wanted = {_IMAGE, _GROUP, *provided, *VALUES, *_DETECTOR} & set(self._place)
        self._columns = {label: [unquoted(row[self._place[label]]) for row in self._rows] for label in wanted}
        groups = [] if optics is None else [dict(zip(optics.labels, row)) for row in optics.rows]
        self._groups = {unquoted(group.get(_GROUP, str(i + 1))): group for i, group in enumerate(groups)}
        further = [each for each in tables.values() if each not in (optics, particles) and each.name not in _STALE_TABLES]
        self.tables = ["\n".join([f"data_{each.name}", *each.lines]) + "\n" for each in reversed(further)]
        self._by_stack: Dict[str, Dict[str, Dict[int, List[int]]]] = {}
        for row, name in enumerate(self._columns[_IMAGE]):
            index, _, stack = name.rpartition("@")
            rows = self._by_stack.setdefault(os.path.basename(stack), {}).setdefault(stack, {})
            rows.setdefault(int(index or 1), []).append(row)
        self._stacks = {}

    def row(self, index, stack, item_id=None):
        """Return the row (from 0) of an image, None if the file does not have it.

        Parameters
        ----------
        index : number of the image in its stack, from 1.
        stack : its file, as Scipion knows it: perhaps a link, or in a linked folder.
        item_id : id of the Scipion item. Where several rows have one image (expanded symmetry), an import's ids tell them
            apart: they count rows.
        """
        if stack not in self._stacks:
            self._stacks[stack] = self._find_stack(os.path.realpath(stack)) or {}
        rows = self._stacks[stack].get(index)
        if not rows:
            self.missed.add((index, stack))
            return None
        return item_id - 1 if item_id is not None and item_id - 1 in rows else rows[0]

    def _find_stack(self, path):
        """Return the rows of the one stack whose name ends most like `path`, None where that is not one."""
        words = path.split(os.sep)[::-1]
        best = 0
        found: List[Dict[int, List[int]]] = []
        for name, rows in self._by_stack.get(words[0], {}).items():
            same = _common(words, os.path.normpath(name).split(os.sep)[::-1])
            if same >= best:
                found = [rows] if same > best else found + [rows]
                best = same
        return found[0] if len(found) == 1 else None

    def text(self, row, label):
        """Return the text of a value that the sets provide; None where the file lacks the row or the column."""
        return self._columns[label][row] if row is not None and label in self._columns else None

    def texts(self, row, labels):
        """Return the texts of several such values, None if one of them is not there."""
        found = [self.text(row, label) for label in labels]
        return None if None in found else found

    def exact(self, row, label, value):
        """Return the file's own text of a number, if it is this number; else the number's shortest text."""
        text = self.text(row, label)
        return text if text is not None and is_number(text, value) else number(value)

    def exact_defocus(self, row, labels, values):
        """Return the file's own texts of a defocus (U, V and angle), if it is the same; else the numbers' shortest texts.

        Scipion keeps the larger value first and the angle within half a turn.
        """
        texts = self.texts(row, labels)
        if texts is not None:
            u, v, angle = (float(text) for text in texts)
            for one, other, turned in ((u, v, angle), (v, u, angle + 90.0)):
                off = (turned - values[2] + 90.0) % 180.0 - 90.0
                if abs(one - values[0]) + abs(other - values[1]) <= _SAME * (abs(u) + abs(v)) and (abs(off) < 1e-6 or u == v):
                    return texts
        return [number(value) for value in values]

    def columns_beside(self, provided):
        """Return the columns that a set which provides some has not."""
        return [label for label in self._place if label not in provided and label not in _STALE]

    def others(self, row, labels):
        """Return the texts of some columns, quoted as in the file; where it lacks the row, such as say nothing."""
        if row is None:
            return [neutral(label, self._rows[0][self._place[label]]) for label in labels]
        return [self._rows[row][self._place[label]] for label in labels]

    def optics(self, row):
        """Return the optics values of a row: dict of label to text, quoted as in the file.

        Values that a file without optics table has in the rows themselves are among them.
        """
        group = self._columns[_GROUP][row] if _GROUP in self._columns else next(iter(self._groups), "1")
        values = dict(self._groups.get(group, {}))
        for label in VALUES:
            if label not in values and label in self._columns:
                values[label] = self._columns[label][row]
        if VALUES[-1] not in values and all(label in self._columns for label in _DETECTOR):
            detector, magnification = (float(self._columns[label][row]) for label in _DETECTOR)
            values[VALUES[-1]] = number(detector * 1e4 / magnification)
        values.setdefault("rlnOpticsGroupName", f"opticsGroup{group}")
        return values

    def first_optics(self):
        """Return the values that an import takes for the whole set: those of the first group."""
        return dict(next(iter(self._groups.values()))) if self._groups else self.optics(0)


def _common(one, other):
    count = 0
    for first, second in zip(one, other):
        if first != second:
            break
        count += 1
    return count


def is_number(text, value):
    """Whether a text is this number."""
    try:
        return abs(float(text) - value) <= _SAME * max(1.0, abs(value))
    except ValueError:
        return False
