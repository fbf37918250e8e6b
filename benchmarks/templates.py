"""Time of a template on the polar grid beside CryoLike's, and time and memory of a large atomic structure, in Markdown.

The figures of CryoLike (milliseconds per template at boxes of 64, 128 and 192 pixels) are not taken in this run: they were
measured earlier, on two cores. What is timed is what a search does when it asks for views: slices at new orientations, and
their power by angular order.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import GIB, Usage, best_of, markdown, measure, print_machine

from cryolike_scipion.engine.allocator import keep_freed_memory
from cryolike_scipion.engine.compute import use_threads
from cryolike_scipion.engine.image_prep import ImageSettings
from cryolike_scipion.engine.polar_images import Window
from cryolike_scipion.engine.polar_settings import PolarSettings, band_tail
from cryolike_scipion.engine.rotations import random_rotations
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import Structure, cut_softly, read_structure
from cryolike_scipion.engine.synthetic_structure import write_structures
from cryolike_scipion.engine.template_power import power_rule, ring_power
from cryolike_scipion.engine.workers import parallel

CRYOLIKE_MS = {64: 15.0, 128: 110.0, 192: 247.0}
_WIDTH = 190.0  # Å, edge of the box; the made-up protein is 115 Å across
_SHIFT = 9.0  # Å, reach of the shifts that the grid is chosen for
_VIEWS_AT_ONCE = 64
_RIBOSOME_RADIUS, _RIBOSOME_PIXEL = 120.0, 2.6


@dataclass(frozen=True)
class Row:
    """Times of one box: seconds to make ready, milliseconds per slice and per template, radii and angles of the grid."""

    box: int
    grid: str
    ready: float
    slice_ms: float
    template_ms: float


def settings_of(structure: Structure, pixel: float) -> PolarSettings:
    """Grid and window as a run would choose them for shifts of up to 9 Å."""
    k_max = 0.5 / pixel
    window = Window(structure.radius + _SHIFT + band_tail(k_max), 2 * pixel)
    return PolarSettings(k_max, structure.radius, window, ImageSettings())


def time_templates(box: int, views: int, repeats: int) -> Row:
    """Templates of the made-up protein, in as many threads as `use_threads` said."""
    pixel = _WIDTH / box
    with TemporaryDirectory() as folder:
        whole = read_structure(write_structures(Path(folder), 1)[0], k_max=0.5 / pixel)
    structure = cut_softly(whole, whole.radius, 2 * whole.pixel_size)
    settings = settings_of(structure, pixel)
    rule = power_rule(settings.grid, structure.radius, _optics())
    start = time.perf_counter()
    maker = SliceMaker(structure, settings.grid)
    ready = time.perf_counter() - start
    rng = np.random.default_rng(0)
    blocks = [random_rotations(_VIEWS_AT_ONCE, rng) for _ in range(-(-views // _VIEWS_AT_ONCE))]

    def slices() -> None:
        for _ in parallel(lambda block: maker(block).shape, blocks):
            pass

    def templates() -> None:
        for _ in parallel(lambda block: ring_power(rule, maker(block)).shape, blocks):
            pass

    each = 1e3 / (len(blocks) * _VIEWS_AT_ONCE)
    shape = f"{settings.grid.n_radii} × {settings.grid.n_angles}"
    return Row(box, shape, ready, each * best_of(slices, repeats), each * best_of(templates, repeats))


def _optics():
    import torch

    one = {
        "defocus_u": 15000.0, "defocus_v": 14600.0, "defocus_angle_deg": 30.0, "voltage_kv": 300.0, "cs_mm": 2.7,
        "amplitude_contrast": 0.1,
    }  # fmt: skip
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in one.items()}


def write_ribosome(path: Path, atoms: int) -> None:
    """A PDB file of atoms spread evenly in a ball of 120 Å."""
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(atoms, 3))
    distance = _RIBOSOME_RADIUS * rng.uniform(size=atoms) ** (1 / 3)
    places = direction / np.linalg.norm(direction, axis=1, keepdims=True) * distance[:, None]
    names = ("N", "CA", "C", "O", "P")
    with path.open("w", encoding="ascii") as file:
        for i, (x, y, z) in enumerate(places):
            name, chain = names[i % 5], chr(ord("A") + i // 5 // 9999 % 26)
            file.write(
                f"ATOM  {i % 100000:5d}  {name:<3s} ALA {chain}{i // 5 % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00"
                f"          {name[0]:>2s}\n"
            )


def measure_atoms(atoms: int, views: int, threads: int) -> tuple[list[float], Usage]:
    """Seconds to read, to make ready, and for ``views`` templates of a ball of atoms at 128 pixels; the process's usage."""
    with TemporaryDirectory() as folder:
        path, told = Path(folder) / "ribosome.pdb", Path(folder) / "times"
        write_ribosome(path, atoms)
        usage = measure([sys.executable, __file__, "--measure", path, told, "--views", views, "--threads", threads])
        return [float(word) for word in told.read_text(encoding="ascii").split()], usage


def _measured(path: Path, told: Path, views: int) -> None:
    """What the process of `measure_atoms` does."""
    times = [time.perf_counter()]
    whole = read_structure(path, k_max=0.5 / _RIBOSOME_PIXEL)
    structure = cut_softly(whole, whole.radius, 2 * whole.pixel_size)
    del whole
    times.append(time.perf_counter())
    maker = SliceMaker(structure, settings_of(structure, _RIBOSOME_PIXEL).grid)
    times.append(time.perf_counter())
    rotations = random_rotations(views, np.random.default_rng(0))
    blocks = np.array_split(rotations, -(-views // _VIEWS_AT_ONCE))
    for _ in parallel(lambda block: maker(block).shape, blocks):
        pass
    times.append(time.perf_counter())
    told.write_text(" ".join(map(str, np.diff(times))), encoding="ascii")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 192], help="box sizes in pixels")
    parser.add_argument("--views", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--atoms", type=int, default=150_000, help="of the large structure")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    use_threads(options.threads)
    if options.measure:
        _measured(*options.measure, options.views)
        return
    print_machine()
    print(f"{options.threads} threads, {options.views} views at random; best of {options.repeats}; single precision.\n")
    rows = []
    for box in options.boxes:
        row = time_templates(box, options.views, options.repeats)
        known = CRYOLIKE_MS.get(box)
        compared = (f"{known:g}", f"{known / row.template_ms:.0f}") if known else ("", "")
        rows.append((box, row.grid, f"{row.ready:.2f}", f"{row.slice_ms:.3f}", f"{row.template_ms:.3f}", *compared))
    header = ("box", "radii × angles", "to make ready, s", "slice, ms", "slice and power, ms", "CryoLike, ms", "ratio")
    print(markdown(header, rows))
    times, usage = measure_atoms(options.atoms, options.views, options.threads)
    print(f"\nA ball of {options.atoms:,} atoms, 240 Å across, at 128 pixels of {_RIBOSOME_PIXEL} Å:\n")
    cells = [*(f"{seconds:.1f}" for seconds in times), f"{usage.peak / GIB:.2f}"]
    print(markdown(("to read, s", "to make ready, s", f"{options.views:,} slices, s", "peak memory, GiB"), [cells]))


if __name__ == "__main__":
    main()
