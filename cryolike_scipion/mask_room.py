"""How wide a mask has to be to lose nothing of a structure; for the engine's default and the form's wizard alike."""

import math

from .constants import RELATIVISTIC_PER_VOLT, WAVELENGTH_VOLT

DEFOCUS = 25_000.0  # Å: particles of a higher one lose a little of their finest detail


def roomy_mask(diameter, reach, limit, voltage):
    """Return the diameter (Å) of the circle around a moved structure with what the CTF spreads around it.

    A defocus Δz moves detail of the spatial frequency k by the gradient of the phase shift, ``λ Δz k`` (the spherical
    aberration takes from it).

    Parameters
    ----------
    diameter : structure's diameter in Å.
    reach : farthest origin from the centre of the box in Å.
    limit : finest detail that is compared, in Å.
    voltage : acceleration voltage in kV.
    """
    volt = 1e3 * voltage
    wavelength = WAVELENGTH_VOLT / math.sqrt(volt * (1 + RELATIVISTIC_PER_VOLT * volt))
    return diameter + 2 * (reach + wavelength * DEFOCUS / limit)
