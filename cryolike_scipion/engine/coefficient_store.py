"""Files of polar coefficients: a cache that `convert particles` fills and `likelihood` may use.

A file holds the coefficients of one chunk of particles, with the hash of what made each. A row of the particle table
points to its coefficients by ``000001@FILE``; where the pointer is stale, or the file is gone, the image is converted afresh.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np

from .atomic import atomic_path
from .fingerprint import canonical_json
from .particles import Particles
from .polar_images import PolarImages
from .polar_settings import PolarSettings, image_hashes

__all__ = ["CoefficientCache", "stored_hashes", "write_coefficients"]


def write_coefficients(path: Path, images: PolarImages, hashes: list[str], settings: PolarSettings) -> None:
    """Write the coefficients of some images to an HDF5 file, whole or not at all."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["settings"] = canonical_json(settings.plain())
        file.create_dataset("hash", data=np.array(hashes, dtype="S32"))
        matched = file.create_dataset("matched", data=images.matched.cpu().numpy())
        matched.attrs["meaning"] = "transform of window · (CTF * image) [image, radius, angle on the half circle]"
        matched.attrs["unit"] = "grey · Å²"
        for name in CoefficientCache.SCALARS:
            file.create_dataset(name, data=getattr(images, name).cpu().numpy())


def stored_hashes(path: Path) -> list[str]:
    """Hashes of the coefficients in a file, in order; none where it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return [h.decode("ascii") for h in file["hash"][()].tolist()]
    except (OSError, KeyError, UnicodeDecodeError):
        return []


class CoefficientCache:
    """Coefficients that a particle table points to.

    Parameters
    ----------
    settings : PolarSettings
        What the run needs; coefficients with another hash are not found.
    base : Path
        Folder of the particle table: pointers are looked for from the current folder, then from here.
    """

    SCALARS = ("image_power", "cross_power", "mask_power", "dof")

    def __init__(self, settings: PolarSettings, base: Path) -> None:
        self.settings, self._base = settings, base
        self._hashes: dict[Path, list[str]] = {}

    @staticmethod
    def stored_settings(particles: Particles) -> PolarSettings | None:
        """Settings of the first file of coefficients that can be read, of those that the particles point to."""
        pointers = {text.partition("@")[2]: text for text in reversed(particles.coefficients or []) if "@" in text}
        for pointer in reversed(pointers.values()):
            try:
                with h5py.File(_resolve(pointer, particles.source.parent)[0], "r") as file:
                    return PolarSettings.from_plain(json.loads(file.attrs["settings"]))
            except (OSError, KeyError, ValueError, TypeError):
                continue
        return None

    def find(self, particles: Particles, indices: np.ndarray) -> dict[int, tuple[Path, int]]:
        """Which of the rows have coefficients with the right hash: position among ``indices`` -> (file, place in it)."""
        if particles.coefficients is None or particles.coefficients_hash is None:
            return {}
        wanted = image_hashes(particles, indices, self.settings)
        found = {}
        for position, (row, made) in enumerate(zip(indices, wanted)):
            if particles.coefficients_hash[row] != made:
                continue
            path, place = _resolve(particles.coefficients[row], self._base)
            stored = self._stored_hashes(path)
            if 0 <= place < len(stored) and stored[place] == made:
                found[position] = (path, place)
        return found

    def read(self, places: list[tuple[Path, int]]) -> dict[str, np.ndarray]:
        """Stored arrays of these places, in order."""
        result: dict[str, np.ndarray] = {}
        paths = [path for path, _ in places]
        for path in dict.fromkeys(paths):
            rows = np.array([i for i, p in enumerate(paths) if p == path])
            inside = np.array([places[i][1] for i in rows])
            order = np.argsort(inside, kind="stable")
            unique, back = np.unique(inside[order], return_inverse=True)
            with h5py.File(path, "r") as file:
                for name in ("matched", *self.SCALARS):
                    values = file[name][unique][back]
                    if name not in result:
                        result[name] = np.empty((len(places), *values.shape[1:]), dtype=values.dtype)
                    result[name][rows[order]] = values
        return result

    def _stored_hashes(self, path: Path) -> list[str]:
        if path not in self._hashes:
            self._hashes[path] = stored_hashes(path)
        return self._hashes[path]


def _resolve(pointer: str, base: Path) -> tuple[Path, int]:
    """File and place (from 0; -1 where the text is no pointer) of ``000001@FILE``."""
    number, _, name = pointer.partition("@")
    if not number.isdigit() or not name:
        return base, -1
    for candidate in (Path(name), base / name, base / os.path.basename(name)):
        if candidate.is_file():
            return candidate.resolve(), int(number) - 1
    return Path(name), -1
