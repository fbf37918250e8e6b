"""The exhaustive kernel against CryoLike's algorithm on its own grid, as a Markdown table.

Both search the same images, views and shifts over all in-plane angles, with templates prepared beforehand.
Ours also computes the likelihood of every pose and sums it; the reference takes the largest inner product
alone.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import reference_kernel as reference
import torch
from common import best_of, processor

from cryolike_scipion import __version__
from cryolike_scipion.engine.allocator import keep_freed_memory
from cryolike_scipion.engine.compute import thread_count, use_threads
from cryolike_scipion.engine.correlation import correlate, shift_factors, shifted_rows
from cryolike_scipion.engine.exhaustive import BlockSizes, search_grid
from cryolike_scipion.engine.image_prep import ImageSettings
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.polar_grid import PolarGrid, choose_grid, gauss_radial_rule, inplane_count
from cryolike_scipion.engine.polar_images import PolarImages, Window, padded_size, polar_images
from cryolike_scipion.engine.polar_settings import GRID_ACCURACY, band_tail
from cryolike_scipion.engine.processes import ForkedWorkers
from cryolike_scipion.engine.radial_basis import plain_basis
from cryolike_scipion.engine.shifts import grid_by_count
from cryolike_scipion.engine.simulate import HalfPlane, Optics, clean_images, draw_truth, noisy_images
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import Structure, read_structure
from cryolike_scipion.engine.synthetic_structure import write_structures
from cryolike_scipion.engine.template_bank import BASIS_ACCURACY, TemplateBank, common_basis
from cryolike_scipion.engine.template_power import PowerRule, delocalisation, power_rule, template_power
from cryolike_scipion.engine.views import cryolike_views, healpix_views

_WIDTH = 190.0  # Å, edge of the box; the made-up protein is 115 Å across
_SHIFT_PIXELS = 1.0


class Case:
    """Images, structure and CTFs of one setting.

    Parameters
    ----------
    box : pixels.
    count : images.
    shifts : along each axis.
    step_deg : angle between views.
    """

    def __init__(self, box: int, count: int, shifts: int, step_deg: float) -> None:
        self.box, self.pixel = box, _WIDTH / box
        self.k_max = 0.5 / self.pixel
        self.structure = _structure(self.k_max)
        self.views = cryolike_views(step_deg)
        self.shifts = grid_by_count(shifts, shifts, _SHIFT_PIXELS * self.pixel * (shifts - 1) / 2)
        self.images, self.arguments, self.signal = _images(self.structure, box, self.pixel, count)
        self.window = Window(self.structure.radius + self.shifts.reach + band_tail(self.k_max), 2 * self.pixel)

    def grid(self) -> PolarGrid:
        """Our grid for this case: from the radii, to the engine's accuracy."""
        return choose_grid(self.k_max, self.window.radius + self.window.edge, self.structure.radius, GRID_ACCURACY)

    def rule(self, grid: PolarGrid) -> PowerRule:
        """Nodes of the template power."""
        return power_rule(grid, self.structure.radius, self.arguments)

    def bank(self) -> TemplateBank:
        """Templates on our grid, compressed as the engine does."""
        grid = self.grid()
        bank = TemplateBank(self.structure, grid, self.rule(grid))
        bank.basis = common_basis([bank], healpix_views(12.0).rotations(), BASIS_ACCURACY)
        return bank

    def polar(self, grid: PolarGrid, dtype: torch.dtype = torch.float32) -> PolarImages:
        """The images on a grid."""
        spread = delocalisation(self.arguments, self.k_max)
        return polar_images(
            self.images.to(dtype),
            torch.ones(len(self.images)),
            self.arguments,
            ImageSettings(),
            grid,
            self.rule(grid),
            self.window,
            self.pixel,
            padded_size(self.box, self.pixel, self.window, spread),
        )

    def slices(self, grid: PolarGrid, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
        """Slices of all views [v, n, W/2]."""
        return SliceMaker(self.structure, grid, dtype=dtype)(self.views.rotations())


def _structure(k_max: float) -> Structure:
    with TemporaryDirectory() as folder:
        return read_structure(write_structures(Path(folder), 1)[0], k_max=k_max)


def _images(structure: Structure, box: int, pixel: float, count: int):
    plane = HalfPlane(box, pixel, 0.5 / pixel)
    truth = draw_truth(count, np.ones(1), np.random.default_rng(2), max_shift=2 * pixel, defocus=(1e4, 2e4), astigmatism=0.0)
    optics, everyone = Optics(), np.arange(count)
    clean = clean_images(truth, everyone, SliceMaker(structure, plane.points()), plane, optics)
    signal = float((0.1 / clean.var(dim=(1, 2)).mean()).sqrt())
    arguments = {
        "defocus_u": truth.defocus_u,
        "defocus_v": truth.defocus_v,
        "defocus_angle_deg": truth.defocus_angle_deg,
        "voltage_kv": np.full(count, optics.voltage_kv),
        "cs_mm": np.full(count, optics.cs_mm),
        "amplitude_contrast": np.full(count, optics.amplitude_contrast),
        "phase_shift_deg": np.zeros(count),
        "bfactor": np.zeros(count),
        "scale": np.ones(count),
    }
    images = noisy_images(clean, signal, truth, everyone, 3)
    return images, {k: torch.as_tensor(v) for k, v in arguments.items()}, signal


def time_ours(case: Case, repeats: int) -> tuple[float, PolarGrid, int]:
    """Seconds of the whole search in processes, as a run does it, our grid, and the number of in-plane angles."""
    grid, bank = case.grid(), case.bank()
    templates, images = bank.templates(case.views), case.polar(grid)
    n_inplane = inplane_count(bank.basis.n_orders - 1)
    per_part = min(BlockSizes().fit(len(case.shifts), n_inplane)[0], -(-len(images) // thread_count()))  # all have work
    noise = float((images.projected_power / images.dof).mean().sqrt())
    prior = ScalePrior(case.signal, 0.1 * case.signal / noise)  # as a run learns it: 10 % from particle to particle
    parts = [slice(start, start + per_part) for start in range(0, len(images), per_part)]

    def score(part: slice, _: object) -> None:
        search_grid(images.take(part), templates, case.views.weights, case.shifts, n_inplane, prior, grid, bank.basis)

    with ForkedWorkers(score, thread_count()) as workers:
        return best_of(lambda: list(workers.map(parts)), repeats), grid, n_inplane


def time_reference(case: Case, repeats: int) -> tuple[float, PolarGrid]:
    """Seconds of the reference search, and its grid."""
    grid = reference.reference_grid(case.box, case.k_max)
    images = reference.full_circle(case.polar(grid).matched)
    templates = torch.fft.fft(reference.full_circle(case.slices(grid)), dim=-1, norm="forward")
    origins = torch.as_tensor(case.shifts.origins)
    batch = (2, 32)
    return best_of(lambda: reference.search(images, templates, grid, origins, batch), repeats), grid


def quadrature_error(case: Case, grid: PolarGrid) -> float:
    """Largest error in cc of our grid over a sample of poses, against a grid twice as dense in double
    precision.
    """
    few = Case.__new__(Case)
    few.__dict__.update(case.__dict__)
    few.images, few.arguments = case.images[:8], {name: value[:8] for name, value in case.arguments.items()}
    views = np.linspace(0, len(case.views) - 1, 24).astype(int)
    rotations = case.views.rotations()[views]
    dense = PolarGrid(*gauss_radial_rule(2 * grid.n_radii, case.k_max), 2 * grid.n_angles, case.k_max)
    found = []
    for rings, real in ((grid, torch.float32), (dense, torch.float64)):
        images = few.polar(rings, real)
        kind = torch.complex64 if real == torch.float32 else torch.complex128
        basis = case.bank().basis if real == torch.float32 else plain_basis(rings, rings.n_half, kind)
        templates = basis.project(SliceMaker(case.structure, rings, dtype=kind)(rotations))
        factors = shift_factors(rings, case.shifts.origins, real)
        rows = shifted_rows(images.matched[:, None], factors, basis)
        b = correlate(rows, templates, basis, 4 * grid.n_angles).double()
        found.append(b.view(8, len(case.shifts), len(views), -1))
    bank = TemplateBank(case.structure, grid, few.rule(grid))
    images = few.polar(grid)
    power = template_power(images.power, bank.templates(case.views, views).power).double()
    norm = torch.sqrt(power * images.projected_power[:, None])
    return float(((found[0] - found[1]).abs().amax(dim=(1, 3)) / norm).max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128], help="box sizes in pixels")
    parser.add_argument("--shifts", type=int, default=5, help="shifts along each axis")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--step", type=float, default=6.4, help="degrees between views (6.4: about 1,000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of so many runs counts")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {processor()}, {options.threads} threads; "
        f"Python {platform.python_version()}, "
        f"torch {torch.__version__}, cryolike-scipion {__version__}; float32, {options.images} images, "
        f"{options.shifts**2} shifts, views every {options.step:g}°; best of {options.repeats}.\n"
    )
    print("| box | views | algorithm | radii × angles | µs per image × template × shift | ratio | error in cc |")
    print("|---|---|---|---|---|---|---|")
    for box in options.boxes:
        case = Case(box, options.images, options.shifts, options.step)
        asked = len(case.images) * len(case.views) * len(case.shifts)
        use_threads(options.threads)
        keep_freed_memory()
        ours, grid, n_inplane = time_ours(case, options.repeats)
        torch.set_num_threads(options.threads)  # the reference works with all of them in every operation
        theirs, their_grid = time_reference(case, options.repeats)
        error = quadrature_error(case, grid)
        print(
            f"| {box} | {len(case.views)} | CryoLike's, written in torch | {their_grid.n_radii} × "
            f"{their_grid.n_angles} | {1e6 * theirs / asked:.2f} | 1 | |"
        )
        print(
            f"| {box} | {len(case.views)} | ours, with likelihood | {grid.n_radii} × {grid.n_angles} "
            f"({n_inplane} in-plane) | {1e6 * ours / asked:.3f} | {theirs / ours:.1f} | {error:.1e} |"
        )


if __name__ == "__main__":
    main()
