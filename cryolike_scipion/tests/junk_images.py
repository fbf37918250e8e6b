"""Images that are no particles of the structures: noise, an edge of carbon, another molecule, two particles in one frame."""

import mrcfile
import numpy as np

from .blob_particles import Blobs
from .small_sets import BOX, simulate, write_map

KINDS = ("noise", "edge", "other", "two")


def junk_set(folder, maps, particles, each, snr):
    """Write a set whose first images are particles and whose others are junk, `each` of every kind in `KINDS`.

    Returns the STAR file and the kind of each image ("particle" or one of `KINDS`).
    """
    folder.mkdir()
    count = particles + each * len(KINDS)
    simulate(folder, maps, count=count, snr=snr)
    other = write_map(folder / "other.mrc", Blobs.random(90, count=5, radius=14.0, sigma=4.0).structure(BOX).density)
    simulate(folder / "other", [other], count=each, snr=snr, seed=3)
    simulate(folder / "second", maps, count=each, snr=snr, seed=4, max_shift=25.0)
    stacks = {name: mrcfile.read(folder / name / "particles.mrcs") for name in ("other", "second")}
    rng = np.random.default_rng(5)
    kinds = np.array(["particle"] * particles + [kind for kind in KINDS for _ in range(each)])
    x = np.arange(BOX) - BOX // 2
    with mrcfile.open(folder / "particles.mrcs", mode="r+") as file:
        images = file.data
        for i in np.flatnonzero(kinds == "noise"):
            images[i] = rng.normal(size=(BOX, BOX))
        for i in np.flatnonzero(kinds == "edge"):
            angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-6, 6)
            inside = x[None] * np.cos(angle) + x[:, None] * np.sin(angle) > place
            images[i] = rng.normal(size=(BOX, BOX)) + 1.5 * inside
        for n, i in enumerate(np.flatnonzero(kinds == "other")):
            images[i] = stacks["other"][n]
        for n, i in enumerate(np.flatnonzero(kinds == "two")):  # noise and all, so that its level is that of two images
            images[i] = (images[i] + stacks["second"][n]) / np.sqrt(2)
    return folder / "particles.star", kinds


def area_under_curve(good, bad):
    """Probability that a good one scores higher than a bad one."""
    good, bad = np.asarray(good)[:, None], np.asarray(bad)[None, :]
    return float(((good > bad) + 0.5 * (good == bad)).mean())
