"""The optics groups of a set as the optics table of the STAR file that the engine reads."""

from typing import Set

from .optics_groups import NAME, NUMBER, filled, new_name, parse_groups, says_nothing
from .original_star import VALUES, is_number
from .star import number, quoted
from .star_tables import unquoted

_SIZE, _DIMENSIONS = "rlnImageSize", "rlnImageDimensionality"
_FLIPPED = "rlnCtfDataArePhaseFlipped"
_LABELS = (NAME, NUMBER, *VALUES, _SIZE, _DIMENSIONS)


class OpticsTable:
    """Groups as they are met, each with the values that all its particles share.

    An import into Scipion gives all particles the pixel size and the microscope of one group, which its form may have changed.
    Where the original file is known, a particle gets its own group's values: as they are if the set has those of the file's
    first group; pixel sizes in proportion if the set was rescaled; and the set's own microscope where the form changed it.
    All others get the group of their number in the table that an import leaves with a set and with each particle.

    Parameters
    ----------
    particles : SetOfParticles
    original : OriginalStar, or None.
    """

    def __init__(self, particles, original):
        self._box = particles.getXDim()
        self._flipped = {_FLIPPED: "1"} if particles.isPhaseFlipped() else {}  # the engine turns them back
        self._original = original
        self._tables = {}
        self._known = self._groups_of(particles.getAcquisition())
        self._shared = _microscope(particles.getAcquisition())
        self._first = original.first_optics() if original is not None else {}
        self._cache = {}
        self._groups = {}

    def group(self, item, pixel, row):
        """Return the number, from 1, of a particle's group.

        Parameters
        ----------
        item : Particle
        pixel : Å.
        row : its row in the original file, None if that is not known.
        """
        values = self._of_item(item, pixel) if row is None else self._of_original(item, pixel, row)
        return self._groups.setdefault(tuple(values.items()), len(self._groups) + 1)

    def table(self):
        """Return the table for :func:`~cryolike_scipion.convert.star.write_star`."""
        groups = filled([{**dict(key), **self._flipped} for key in self._groups])
        labels = list(dict.fromkeys([*_LABELS, *groups[0]]))
        names: Set[str] = set()
        for group in groups:  # programs that join files tell groups apart by their names
            name = unquoted(group[NAME])
            if name in names:
                group[NAME] = quoted(new_name(name, names))
            names.add(name)
        rows = [[str(i) if label == NUMBER else group[label] for label in labels] for i, group in enumerate(groups, 1)]
        return "optics", labels, rows

    def _of_item(self, item, pixel):
        label = int(item.getAttributeValue("_rlnOpticsGroup", 1) or 1)
        given = self._group_of(item, label)
        microscope = _of_group(given) or _microscope(item.getAcquisition())
        _check(item, (*microscope, pixel))
        values = dict(zip(VALUES, (number(value) for value in (*microscope, pixel))))
        head = {NAME: given.get(NAME, f"opticsGroup{label}"), **values, _SIZE: str(self._box), _DIMENSIONS: "2"}
        # What says nothing is left out: a set that grows gets columns, and what was written must stay the same.
        more = {other: text for other, text in given.items() if other not in head and not says_nothing(other, text)}
        return {**head, **more}

    def _group_of(self, item, label):
        """Return the set's group of a number; a particle of another set, which was joined to it, has one of its own."""
        known, own = self._known.get(label, {}), self._groups_of(item.getAcquisition())
        if own:
            group = own.get(label, {})
            return known if _of_group(group) in (None, _of_group(known)) else group
        return known if _microscope(item.getAcquisition()) in (self._shared, _of_group(known)) else {}

    def _groups_of(self, acquisition):
        """Return the optics groups that an import left with a set or a particle: number to group."""
        text = acquisition.getAttributeValue("opticsGroupInfo") if acquisition is not None else None
        if text not in self._tables:
            try:
                self._tables[text] = parse_groups(text)
            except ValueError:  # imports write names with blanks without their quotes
                self._tables[text] = {}
        return self._tables[text]

    def _of_original(self, item, pixel, row):
        microscope = _microscope(item.getAcquisition())
        _check(item, (*microscope, pixel))
        given = self._original.optics(row)
        key = (tuple(given.items()), *microscope, pixel)
        if key not in self._cache:
            values = {label: text for label, text in given.items() if label != NUMBER}
            for label, own in zip(VALUES, microscope):
                if not (label in given and is_number(self._first.get(label, ""), own)):
                    values[label] = number(own)
            values.update(self._sizes(given, pixel))
            self._cache[key] = values
        return self._cache[key]

    def _sizes(self, given, pixel):
        """Pixel size and box of a group of the original file, in the set."""
        first, own = self._first.get(VALUES[-1]), given.get(VALUES[-1])
        if first is None or own is None:
            pixel_text = number(pixel)
        else:
            pixel_text = own if _close(first, pixel) else number(float(own) * pixel / float(first))
        same_box = str(self._box) == self._first.get(_SIZE) and _SIZE in given
        return {
            VALUES[-1]: pixel_text,
            _SIZE: given[_SIZE] if same_box else str(self._box),
            _DIMENSIONS: given.get(_DIMENSIONS, "2"),
        }


def _microscope(acquisition):
    return acquisition.getVoltage(), acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast()


def _check(item, values):
    if any(value is None for value in values):
        raise ValueError(
            f"Particle {item.getObjId()} lacks its voltage, spherical aberration, amplitude contrast "
            "or pixel size. Import the particles with these values."
        )


def _close(text, value):
    return abs(float(text) - value) <= 1e-4 * value


def _of_group(group):
    """Return a group's voltage, spherical aberration and amplitude contrast, None if it lacks one."""
    try:
        return tuple(float(unquoted(group[label])) for label in VALUES[:3])
    except (KeyError, ValueError):
        return None
