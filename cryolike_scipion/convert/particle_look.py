"""Converted particles to look at, as the engine's ``inspect`` and ``particles`` write them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ParticleLook:
    """Some particles before and after their preparation, and the spectrum of the first.

    Attributes
    ----------
    rows : ndarray, int64, [v]
        In the engine's table, from 1.
    raw, prepared : ndarray, float, [v, N, N]
        As in the file, and as they are compared.
    frequency, power : ndarray, float64, [r]
        1/Å, and the rotational average of the power of the first, as in the file.
    ctf_frequency, ctf_squared : ndarray, float64, [c]
        1/Å, and its CTF², mean over angles.
    title : str
    """

    rows: np.ndarray
    raw: np.ndarray
    prepared: np.ndarray
    frequency: np.ndarray
    power: np.ndarray
    ctf_frequency: np.ndarray
    ctf_squared: np.ndarray
    title: str


def read_look(path):
    """Read the file of :class:`ParticleLook`."""
    with np.load(path, allow_pickle=False) as arrays:
        names = ("rows", "raw", "prepared", "frequency", "power", "ctf_frequency", "ctf_squared")
        defocus = float(arrays["defocus"]) / 1e4
        title = f"row {int(arrays['rows'][0])}, defocus {defocus:.2f} µm, to {1 / float(arrays['k_max']):.2f} Å"
        return ParticleLook(title=title, **{name: arrays[name] for name in names})
