"""Time to bring particle images onto the polar grid, beside an FFT of the same images and reading them from the disk, in
Markdown.

A stack of noise is written to the folder given, forced to the disk and dropped from the cache, so that reading it is reading
the disk (where a virtual machine's disk is kept in its host's memory, it is that). All three are done in the same threads.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mrcfile
import numpy as np
from common import best_of, markdown, print_machine

from cryolike_scipion.engine.allocator import keep_freed_memory
from cryolike_scipion.engine.compute import use_threads
from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.image_prep import ImageSettings
from cryolike_scipion.engine.particles import Particles, read_particles
from cryolike_scipion.engine.polar_images import Window
from cryolike_scipion.engine.polar_settings import PolarSettings, band_tail
from cryolike_scipion.engine.template_power import ctf_arguments, power_rule
from cryolike_scipion.engine.workers import parallel

_WIDTH = 190.0  # Å, edge of the box
_RADIUS, _SHIFT = 58.0, 9.0  # Å, of the structure and of the shifts that the grid is chosen for
_MASK = 150.0  # Å, diameter
_BLOCK = 256  # images at once in a thread
_READ_BYTES = 1 << 24


@dataclass(frozen=True)
class Row:
    """What was done, and milliseconds per image."""

    what: str
    ms: float


def write_stack(folder: Path, box: int, count: int) -> Path:
    """STAR file of ``count`` images of noise in one stack, defoci between 1 and 2 µm with 200 Å of astigmatism."""
    rng, pixel, stack = np.random.default_rng(0), _WIDTH / box, folder / "noise.mrcs"
    with mrcfile.new_mmap(stack, shape=(count, box, box), mrc_mode=2, overwrite=True) as mrc:
        for start in range(0, count, _BLOCK):
            some = mrc.data[start : start + _BLOCK]
            some[...] = rng.standard_normal(some.shape, dtype=np.float32)
        mrc.set_image_stack()
        mrc.voxel_size = pixel
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnImagePixelSize\n_rlnImageSize\n"
    head += "_rlnImageDimensionality\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    head += f"1 one {pixel} {box} 2 300 2.7 0.1\n\ndata_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n"
    head += "_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
    defocus, angle = rng.uniform(1e4, 2e4, count), rng.uniform(0, 180, count)
    lines = [f"{i + 1:06d}@noise.mrcs 1 {u:.2f} {u - 200:.2f} {a:.2f}\n" for i, (u, a) in enumerate(zip(defocus, angle))]
    star = folder / "noise.star"
    star.write_text(head + "".join(lines), encoding="ascii")
    return star


def drop_from_cache(path: Path) -> None:
    """Force a file to the disk and out of the cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(path: Path) -> float:
    """Seconds to read a file from its beginning to its end."""
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass
    return time.perf_counter() - start


def settings_of(box: int, resolution: float | None = None, mask: float | None = None) -> PolarSettings:
    """As a run would choose them for a structure 116 Å across."""
    pixel = _WIDTH / box
    k_max = 0.5 / pixel if resolution is None else min(0.5 / pixel, 1 / resolution)
    images = ImageSettings(mask_diameter=mask, mask_edge=4 * pixel if mask else 0.0)
    return PolarSettings(k_max, _RADIUS, Window(_RADIUS + _SHIFT + band_tail(k_max), 2 * pixel), images)


def time_conversion(particles: Particles, settings: PolarSettings, count: int) -> float:
    """Milliseconds per image of reading and converting the first ``count``, in as many threads as `use_threads` said."""
    rule = power_rule(settings.grid, settings.template_radius, ctf_arguments(particles, np.arange(len(particles))))
    blocks = [np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]

    def work(rows: np.ndarray) -> int:
        return len(convert(particles, rows, settings, rule, "stop").usable)

    work(blocks[0])  # tables, made once
    start = time.perf_counter()
    done = sum(parallel(work, blocks))
    return 1e3 * (time.perf_counter() - start) / done


def time_fft(box: int, count: int, repeats: int) -> float:
    """Milliseconds per image of torch's real FFT, in the same threads."""
    import torch

    images = torch.randn(_BLOCK, box, box)

    def work(_: int) -> None:
        for some in images.split(16):
            torch.fft.rfft2(some)

    blocks = range(max(1, count // _BLOCK))
    return 1e3 * best_of(lambda: list(parallel(work, blocks)), repeats) / (len(blocks) * _BLOCK)


def rows_of(folder: Path, box: int, gigabytes: float, count: int, repeats: int) -> list[Row]:
    """Every figure of one box; ``count`` images are converted, of a stack of ``gigabytes`` (1e9 bytes)."""
    whole = max(count, int(gigabytes * 1e9 / (4 * box**2)))
    star = write_stack(folder, box, whole)
    stack = folder / "noise.mrcs"
    particles = read_particles([star])
    read = []
    for _ in range(repeats):
        drop_from_cache(stack)
        read.append(read_once(stack))
    rows = [
        Row(f"reading from a cold cache ({stack.stat().st_size / 1e6 / min(read):.0f} MB/s)", 1e3 * min(read) / whole),
        Row("real FFT of the images", time_fft(box, count, repeats)),
    ]
    cases = (
        ("conversion to the Nyquist frequency", settings_of(box)),
        ("conversion, with a mask of 150 Å", settings_of(box, mask=_MASK)),
        ("conversion to half the Nyquist frequency", settings_of(box, resolution=4 * _WIDTH / box)),
    )
    for what, settings in cases:
        grid = f"{settings.grid.n_radii} × {settings.grid.n_angles}"
        rows.append(Row(f"{what} ({grid})", min(time_conversion(particles, settings, count) for _ in range(repeats))))
    drop_from_cache(stack)
    cold = time_conversion(particles, settings_of(box), whole)
    rows.append(Row("conversion to the Nyquist frequency from a cold cache", cold))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=int, default=128, help="pixels")
    parser.add_argument("--images", type=int, default=2048, help="to convert from a warm cache")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the stack on the disk")
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    options = parser.parse_args()
    keep_freed_memory()
    use_threads(options.threads)
    print_machine()
    print(f"{options.threads} threads; box {options.box}, single precision; best of {options.repeats}.\n")
    with TemporaryDirectory(dir=options.folder) as folder:
        rows = rows_of(Path(folder), options.box, options.gigabytes, options.images, options.repeats)
    fft = rows[1].ms
    megabyte = 4 * options.box**2 / 1e6
    print(
        markdown(
            ("what", "ms per image", "MB/s of images", "FFTs"),
            [(row.what, f"{row.ms:.3f}", f"{1e3 * megabyte / row.ms:.0f}", f"{row.ms / fft:.1f}") for row in rows],
        )
    )


if __name__ == "__main__":
    main()
