"""Converted particles to look at, as the engine's ``inspect`` and ``particles`` write them."""

from dataclasses import dataclass

import numpy as np

from .inspection import item_ids


@dataclass(frozen=True)
class ParticleLook:
    """Some particles before and after their preparation, and the spectrum of the first.

    Attributes
    ----------
    items : ndarray, int64, [v]
        Their Scipion items.
    raw, prepared : ndarray, float, [v, N, N]
        As in the file, and as they are compared.
    frequency, power : ndarray, float64, [r]
        1/Å, and the rotational average of the power of the first, as in the file.
    ctf_frequency, ctf_squared : ndarray, float64, [c]
        1/Å, and its CTF², mean over angles.
    title : str
    """

    items: np.ndarray
    raw: np.ndarray
    prepared: np.ndarray
    frequency: np.ndarray
    power: np.ndarray
    ctf_frequency: np.ndarray
    ctf_squared: np.ndarray
    title: str


def read_look(path, star):
    """Read the file of :class:`ParticleLook`, whose rows are of the engine's STAR file."""
    with np.load(path, allow_pickle=False) as arrays:
        items = np.array(item_ids(star))[arrays["rows"] - 1]
        names = ("raw", "prepared", "frequency", "power", "ctf_frequency", "ctf_squared")
        defocus = float(arrays["defocus"]) / 1e4
        title = f"particle {items[0]}, defocus {defocus:.2f} µm, compared to {1 / float(arrays['k_max']):.2f} Å"
        return ParticleLook(items=items, title=title, **{name: arrays[name] for name in names})
