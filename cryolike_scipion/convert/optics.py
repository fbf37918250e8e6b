"""The optics groups of a set as the optics table of the STAR file that the engine reads."""

from .original_star import VALUES, is_number
from .star import number, parse_columns, quoted

_NAME, _NUMBER, _SIZE, _DIMENSIONS = "rlnOpticsGroupName", "rlnOpticsGroup", "rlnImageSize", "rlnImageDimensionality"
_FLIPPED = "rlnCtfDataArePhaseFlipped"
_LABELS = (_NAME, _NUMBER, *VALUES, _SIZE, _DIMENSIONS)


class OpticsTable:
    """Groups as they are met, each with the values that all its particles share.

    An import into Scipion gives all particles the pixel size and the microscope of one group, which its form may have changed.
    Where the original file is known, a particle gets its own group's values: as they are if the set has those of the file's
    first group; pixel sizes in proportion if the set was rescaled; and the set's own microscope where the form changed it.

    Parameters
    ----------
    particles : SetOfParticles
    original : OriginalStar, or None.
    """

    def __init__(self, particles, original):
        self._box = particles.getXDim()
        self._flipped = {_FLIPPED: "1"} if particles.isPhaseFlipped() else {}  # the engine turns them back
        self._original = original
        self._known = _of_import(particles.getAcquisition())
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
        values = self._of_original(item, pixel, row) if self._original is not None else self._of_item(item, pixel)
        return self._groups.setdefault(tuple(values.items()), len(self._groups) + 1)

    def table(self):
        """Return the table for :func:`~cryolike_scipion.convert.star.write_star`."""
        groups = [{**dict(key), **self._flipped} for key in self._groups]
        labels = list(dict.fromkeys([*_LABELS, *(label for group in groups for label in group)]))
        rows = [[str(i) if label == _NUMBER else group[label] for label in labels] for i, group in enumerate(groups, 1)]
        return "optics", labels, rows

    def _of_item(self, item, pixel):
        acquisition = item.getAcquisition()
        label = int(item.getAttributeValue("_rlnOpticsGroup", 1) or 1)
        name, microscope = self._known.get(label, (f"opticsGroup{label}", _microscope(acquisition)))
        _check(item, (*microscope, pixel))
        values = dict(zip(VALUES, (number(value) for value in (*microscope, pixel))))
        return {_NAME: quoted(name), **values, _SIZE: str(self._box), _DIMENSIONS: "2"}

    def _of_original(self, item, pixel, row):
        microscope = _microscope(item.getAcquisition())
        _check(item, (*microscope, pixel))
        given = self._original.optics(row)
        key = (tuple(given.items()), *microscope, pixel)
        if key not in self._cache:
            values = {label: text for label, text in given.items() if label != _NUMBER}
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


def _of_import(acquisition):
    """Return the optics groups that an import left with the set: number to (name, (kV, mm, amplitude contrast))."""
    text = acquisition.getAttributeValue("opticsGroupInfo")
    labels = (_NUMBER, _NAME, *VALUES[:3])
    try:
        table = parse_columns(text.splitlines(), "optics", labels, "the optics groups of the input set") if text else {}
    except ValueError:  # imports write names with blanks without their quotes
        return {}
    if not all(label in table for label in labels):
        return {}
    return {
        int(label): (name, (float(kv), float(cs), float(contrast)))
        for label, name, kv, cs, contrast in zip(*(table[each] for each in labels))
    }
