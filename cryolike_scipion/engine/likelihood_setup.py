"""What a likelihood run compares with what, on which grids: all choices made once, before the first image is read."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import symmetry
from .amplitude_match import match_amplitudes
from .bands import Band, low_band
from .coefficient_store import CoefficientCache
from .division import Division
from .errors import InputError
from .fingerprint import file_sha256, fingerprint
from .image_choice import choose_images
from .levels import Level, build_levels, coarse_bands, single_level
from .mask_power import kept_shares
from .noise_choice import choose_noise
from .noise_spectrum import NoiseModel
from .particles import Particles, read_particles
from .polar_grid import fft_friendly, inplane_count
from .polar_images import PolarImages, Window
from .polar_settings import PolarSettings, band_tail
from .pose_mass import PoseWindow
from .results import StructureEntry
from .rotations import matrix_from_euler
from .shared_views import input_views
from .shifts import ShiftGrid, grid_by_count, grid_by_radius
from .structure_posteriors import prior_probabilities
from .structures import Structure, atom_options, kind_of, load, one_each, read_structures, structure_files
from .template_bank import BASIS_ACCURACY, TemplateBank, common_basis, order_count, ring_profile
from .template_power import PowerRule, ctf_arguments, power_rule, ring_ctf
from .views import ViewTable, first_step_deg, healpix_views

__all__ = ["Setup", "parse_rows", "prepare_run", "with_noise"]

logger = logging.getLogger(__name__)

_SOFT_VOXELS = 2.0
_SHIFT_STEPS = 2  # at least so many from the centre to the edge: the cells would not cover the disc
_SCALE_VIEWS = 200
_GENERIC = (11.3, 27.7, 41.9)  # degrees: views turned by it lie on no axis
# Maps of one reconstruction, or models of one complex, differ less in power than this; maps of different origin, more.
_ONE_GREY_SCALE = 3.0


@dataclass(frozen=True)
class Setup:
    """A run, ready to score particles.

    Attributes
    ----------
    particles : Particles
        The rows to score.
    structures : list of Structure
        Cut softly at their radius.
    entries : list of StructureEntry
    bands : list of Band
        Lowest first, the full one last; their banks are one per structure, all on one grey scale.
    levels : list of list of Level
        For every structure, of its search; the last has the grid's views.
    ring_ctf : float64 [n]
        CTF² at the radii of the full band, mean over images.
    settings : PolarSettings
    shifts : ShiftGrid
    n_inplane : int
    near : PoseWindow
    division : Division
    search : str
        "hierarchical", "exhaustive", "local" or "fixed".
    local_range : float, degrees
    cache : CoefficientCache or None
    bad_images, device : str
    kept : list of float64 [M], or None
        With a mask: share of <T,T> that it leaves, per structure and particle.
    input_views : int64 [v], or None, see `shared_views`
    """

    particles: Particles
    structures: list[Structure]
    entries: list[StructureEntry]
    bands: list[Band]
    levels: list[list[Level]]
    ring_ctf: np.ndarray
    settings: PolarSettings
    shifts: ShiftGrid
    n_inplane: int
    near: PoseWindow
    division: Division
    search: str
    local_range: float
    cache: CoefficientCache | None
    bad_images: str
    device: str
    kept: list[np.ndarray] | None = None
    input_views: np.ndarray | None = None

    @property
    def banks(self) -> list[TemplateBank]:
        """Templates of the full band."""
        return self.bands[-1].banks

    @property
    def rule(self) -> PowerRule:
        """Of the full band."""
        return self.bands[-1].rule

    @property
    def tables(self) -> list[ViewTable]:
        """Views of the grid, per structure."""
        return [levels[-1].table for levels in self.levels]

    def behind_mask(self, k: int, images: PolarImages, rows: np.ndarray) -> PolarImages:
        """Images of particles ``rows`` with the CTF weights that give <T,T> of structure k behind the mask."""
        if self.kept is None:
            return images
        share = torch.as_tensor(self.kept[k][rows], device=images.power.device)
        return dataclasses.replace(images, power=images.power * share[:, None, None].to(images.power))


def parse_rows(text: str | None, count: int) -> np.ndarray:
    """Indices (from 0) of rows ``A:B`` (from 1, both included; either end may be open).

    Raises
    ------
    InputError
        If the text is no range, or the range holds no row.
    """
    if text is None:
        return np.arange(count)
    first, colon, last = text.partition(":")
    try:
        begin = int(first) if first.strip() or not colon else 1
        end = (int(last) if last.strip() else count) if colon else begin
    except ValueError:
        raise InputError(f"rows {text!r} is no range", remedy="Give A:B, such as 1:1000.") from None
    if not 1 <= begin <= end or begin > count:
        raise InputError(f"rows {text!r} hold none of the {count} particles", remedy=f"Give a range within 1:{count}.")
    return np.arange(begin - 1, min(end, count))


def prepare_run(parameters: dict[str, Any], device: str, noise: NoiseModel | None = None) -> Setup:
    """Read the tables and structures and decide the grids.

    Parameters
    ----------
    parameters : dict
        Completed parameters of the verb ``likelihood``.
    device : str
    noise : NoiseModel, optional
        Spectra that are known; else they are chosen as the parameters say.

    Raises
    ------
    InputError
        If particles or structures cannot be used.
    """
    particles = read_particles(
        parameters["particles"],
        root=parameters["root"],
        pixel_size=parameters["pixel"],
        amplitude_contrast=parameters["amplitude_contrast"],
    )
    views = input_views(parameters, particles)  # of all rows: those of a part would depend on how the file is cut
    particles = particles.take(parse_rows(parameters["rows"], len(particles)))
    search = parameters["search"]
    if search in ("local", "fixed") and not particles.has_pose:
        raise InputError(
            f"a {search} search starts from poses, but the particles have none",
            file=particles.source,
            remedy="Use --search hierarchical, or give a file with rlnAngleRot, rlnAngleTilt and rlnAnglePsi.",
        )
    coarsest = max(group.pixel_size for group in particles.optics)
    k_max = min(group.nyquist for group in particles.optics)
    stored = CoefficientCache.stored_settings(particles)
    if parameters["resolution"] is not None:
        k_max = min(k_max, 1 / parameters["resolution"])
    elif stored is not None:
        k_max = min(k_max, stored.k_max)
    structures, entries, ready = _structures(parameters, k_max)
    k_max = min([k_max] + [s.k_max for s in structures])
    if parameters.get("match_amplitudes"):  # results of earlier versions have no such parameter
        structures, entries = _matched(structures, entries, k_max)
    structures = [_cut(s, k_max) for s in structures]
    radius = max(s.radius for s in structures)
    box = max(group.box * group.pixel_size for group in particles.optics)
    shifts = _shifts(parameters, box, max(coarsest, 0.5 / k_max))
    margin = _margin(particles) if search in ("local", "fixed") else 0.0
    images = choose_images(parameters, stored, radius, shifts.reach + margin, k_max, particles.optics)
    settings = _settings(parameters, stored, k_max, radius, shifts, margin, images, coarsest)
    settings = dataclasses.replace(settings, noise=choose_noise(parameters, particles, settings, noise))
    arguments = ctf_arguments(particles, np.arange(len(particles)), noise=settings.noise)
    tables = [_views(parameters, s, stored_views, k_max) for s, stored_views in zip(structures, ready)]
    if search == "local":  # an input pose may be any of its symmetry mates
        tables = [table if table.symmetry == "C1" else healpix_views(table.step_deg * 1.001) for table in tables]
    bands = _bands(structures, settings, arguments, device, parameters["precision"] == "double", search == "hierarchical")
    widest = max(table.step_deg for table in tables)
    n_inplane = max(bands[-1].n_inplane, fft_friendly(int(np.ceil(360 / (1.6 * widest))), 8))
    transfer = ring_ctf(arguments, settings.grid.radii)
    if search == "hierarchical":
        levels = [build_levels(bands, k, table, shifts, transfer) for k, table in enumerate(tables)]
    else:
        levels = [single_level(table, shifts) for table in tables]
    cache = CoefficientCache(settings, particles.source.parent) if particles.coefficients else None
    if cache is not None and settings.noise is not None:
        logger.info("The particles' coefficients were made for white noise; the images are converted afresh.")
        cache = None
    return Setup(
        particles,
        structures,
        entries,
        bands,
        levels,
        transfer,
        settings,
        shifts,
        n_inplane,
        PoseWindow(parameters["posterior_angle"], parameters["posterior_shift"] * coarsest),
        Division(levels=parameters["levels"]),
        search,
        parameters["local_range"],
        cache,
        parameters["bad_images"],
        device,
        kept_shares(particles, structures, settings),
        views,
    )


def with_noise(setup: Setup, noise: NoiseModel) -> Setup:
    """The same run with other noise spectra; those of micrographs differ from them as before."""
    if noise.micrographs is None and setup.settings.noise is not None:
        noise = dataclasses.replace(noise, micrographs=setup.settings.noise.micrographs)
    settings = dataclasses.replace(setup.settings, noise=noise)
    transfer = ring_ctf(ctf_arguments(setup.particles, np.arange(len(setup.particles)), noise=noise), settings.grid.radii)
    levels = setup.levels
    if setup.search == "hierarchical":
        levels = [build_levels(setup.bands, k, table, setup.shifts, transfer) for k, table in enumerate(setup.tables)]
    kept = kept_shares(setup.particles, setup.structures, settings)
    return dataclasses.replace(setup, settings=settings, ring_ctf=transfer, levels=levels, kept=kept)


def _structures(parameters, k_max) -> tuple[list[Structure], list[StructureEntry], list[ViewTable | None]]:
    paths = structure_files(parameters["structures"])
    labels: list[str | None] = [None] * len(paths)
    if parameters["labels"]:
        labels = list(one_each(parameters["labels"], len(paths), "labels", spread=False))
    groups = one_each(parameters["symmetry"] or ["C1"], len(paths), "symmetries")
    structures, entries, tables = [], [], []
    for path, label, group in zip(paths, labels, groups):
        ready = path.suffix.lower() == ".h5"
        # A structure made ready has its own symmetry; C1 is only the default of the option.
        of_file = read_structures(
            path,
            symmetry=None if ready and symmetry.canonical(group) == "C1" else group,
            label=label,
            k_max=k_max,
            **atom_options(parameters),
        )
        stored = load(path)[1] if ready else None
        content = _content_sha256(path, atom_options(parameters))
        for structure in of_file:
            structures.append(structure)
            entries.append(StructureEntry(structure.label, str(path), structure.symmetry, content))
            tables.append(stored if stored is not None and stored.symmetry == structure.symmetry else None)
    prior_probabilities(parameters["priors"], len(structures))  # used at the end, refused before the work
    return structures, entries, tables


def _matched(structures, entries, k_max: float) -> tuple[list[Structure], list[StructureEntry]]:
    """Structures of one radial profile of amplitudes; what each is then depends on all of them, and its hash says so."""
    found = match_amplitudes(structures, k_max)
    for structure, gain in zip(structures, found.gain):
        logger.info("%s: amplitudes matched, by factors from %.3g to %.3g", structure.label, gain.min(), gain.max())
    everything = sorted(entry.sha256 for entry in entries)
    own = [fingerprint({"matched": entry.sha256, "with": everything, "k_max": k_max}) for entry in entries]
    return found.structures, [dataclasses.replace(entry, sha256=sha) for entry, sha in zip(entries, own)]


def _content_sha256(path: Path, options: dict[str, Any]) -> str:
    """What tells one structure from another: the file's hash; for files of atoms with what is taken from them and how."""
    content = file_sha256(path)
    if kind_of(path) != "atoms":
        return content
    return fingerprint({"file": content, **options, "choice": vars(options["choice"])})


def _cut(structure: Structure, k_max: float) -> Structure:
    """The structure within its radius, with a soft edge of two voxels outside it.

    What lies beyond (for a map: less than 1e-4 of its power) would need more angular orders than the grid has.
    """
    edge = _SOFT_VOXELS
    radius = min(structure.radius / structure.pixel_size, structure.box / 2 - edge)
    axis = np.arange(structure.box) - structure.box // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    factor = 0.5 * (1 + np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1)))
    return dataclasses.replace(
        structure,
        density=(structure.density * factor).astype(np.float32),
        radius=(radius + edge) * structure.pixel_size,
        k_max=min(k_max, structure.k_max),
    )


def _shifts(parameters, box: float, step: float) -> ShiftGrid:
    """The first grid of shifts; ``step`` (Å), or less where the disc is small, where none is asked for."""
    if parameters["search"] == "fixed":
        return grid_by_radius(0.0, step)
    reach = 0.1 * box if parameters["max_shift"] is None else parameters["max_shift"]
    counts = parameters["shifts_x"], parameters["shifts_y"]
    if reach == 0:
        return grid_by_radius(0.0, step)
    if counts != (None, None):
        if parameters["shift_step"] is not None:
            raise InputError("both a shift step and numbers of shifts are given", remedy="Give one of them.")
        first = counts[0] or counts[1]
        return grid_by_count(first, counts[1] or first, reach)
    return grid_by_radius(reach, min(parameters["shift_step"] or min(step, reach / _SHIFT_STEPS), reach))


def _margin(particles: Particles) -> float:
    """Farthest input origin (Å): shifts of a local search are about these."""
    return float(np.hypot(particles.origin_x, particles.origin_y).max(initial=0.0))


def _settings(parameters, stored: PolarSettings | None, k_max, radius, shifts, margin, images, pixel_size) -> PolarSettings:
    """Grid and window; those of coefficients that the particles have, where they serve."""
    reach = shifts.reach + max(shifts.step) / 2 + margin
    if stored is not None:
        if stored.serves(k_max, radius, reach, images, parameters["precision"]):
            return stored
        logger.info("The particles' coefficients were made with other settings; the images are converted afresh.")
    return PolarSettings(
        k_max, radius, Window(radius + reach + band_tail(k_max), 2 * pixel_size), images, parameters["precision"]
    )


def _bands(structures, settings: PolarSettings, arguments, device, double: bool, coarse: bool) -> list[Band]:
    """The full band, with banks whose mean <T,T> over views is one (over all structures of one grey scale together), and
    lower ones before it where a ``coarse`` search asks for them.
    """
    grid = settings.grid
    rule = power_rule(grid, max(s.radius for s in structures), arguments)
    banks = [TemplateBank(s, grid, rule, 1.0, device, double) for s in structures]
    few = healpix_views(float(np.rad2deg(np.sqrt(4 * np.pi / _SCALE_VIEWS))))
    turned = few.rotations() @ matrix_from_euler(*_GENERIC)
    basis = common_basis(banks, turned, 1e-9 if double else BASIS_ACCURACY)
    profiles = np.array([ring_profile(bank, turned) for bank in banks])
    power = profiles.sum(axis=1)
    for structure, own in zip(structures, power):
        if not own > 0:
            raise InputError("structure has no density within the band", file=structure.source, remedy="Check the map.")
    for members in _grey_scales(structures, power):
        for k in members:
            banks[k].scale = float(power[members].mean() ** -0.5)
        if len(members) < len(banks):
            logger.info("on a grey scale of their own: %s", ", ".join(structures[k].label for k in members))
    for bank in banks:
        bank.basis = basis
    # As many angles as the templates have orders, of which the basis drops those that hold next to nothing.
    full = Band(grid, rule, basis, banks, inplane_count(max(order_count(s, grid) for s in structures) - 1))
    if not coarse:
        return [full]
    seen = (profiles / power[:, None]).mean(axis=0) * ring_ctf(arguments, grid.radii)
    lower = coarse_bands(grid.k_max, max(s.radius for s in structures), lambda k: float(seen[grid.radii <= k].sum()))[:-1]
    return [low_band(full, k, settings.window, structures, arguments, turned) for k in lower] + [full]


def _grey_scales(structures: list[Structure], power: np.ndarray) -> list[list[int]]:
    """Structures that share one grey scale: those of one kind whose band powers lie within `_ONE_GREY_SCALE` of each other."""
    groups: list[list[int]] = []
    for k in np.argsort(power, kind="stable"):
        fits = [g for g in groups if structures[g[0]].kind == structures[k].kind and power[k] < _ONE_GREY_SCALE * power[g[0]]]
        if fits:
            fits[0].append(int(k))
        else:
            groups.append([int(k)])
    return groups


def _views(parameters, structure: Structure, stored: ViewTable | None, k_max: float) -> ViewTable:
    """Views of the first grid: as asked for, else as the templates have them, else by the finest detail."""
    wanted = first_step_deg(structure.radius, k_max)
    if parameters["angular_step"] is None and stored is not None:
        if stored.step_deg > 1.3 * wanted:
            logger.warning(
                "%s: the templates' views are %.1f° apart, and %.1f° would suit the detail compared",
                structure.label,
                stored.step_deg,
                wanted,
            )
        return stored
    return healpix_views(parameters["angular_step"] or wanted, structure.symmetry)
