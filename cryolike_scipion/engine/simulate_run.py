"""The verb ``simulate``: a stack of particles, the STAR file a user would have, and the truth beside it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from .atomic import atomic_path, write_bytes
from .errors import InputError
from .progress import Progress
from .shared_scale import mean_noise
from .simulate import HalfPlane, Optics, Truth, clean_images, draw_truth, noisy_images
from .slices import SliceMaker
from .structures import Structure, atom_options, kind_of, read_structure, read_structures
from .synthetic_structure import write_structures

STACK, STAR, TRUTH = "particles.mrcs", "particles.star", "truth.star"
_CHUNK = 64  # images made together
_BOX, _PIXEL = 64, 3.0  # where no map says it
logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write ``particles.mrcs``, ``particles.star`` and ``truth.star`` into the output folder.

    Parameters
    ----------
    parameters : completed parameters of the verb ``simulate``.
    progress : told about images.

    Raises
    ------
    InputError
        For a structure that cannot be read or a value that does not fit the others.
    """
    out = Path(parameters["out"])
    out.mkdir(parents=True, exist_ok=True)
    seed = parameters["seed"]
    if parameters["defocus_min"] > parameters["defocus_max"]:
        raise InputError(
            f"the least defocus ({parameters['defocus_min']:g} Å) is more than the greatest ({parameters['defocus_max']:g} Å)",
            remedy="Exchange --defocus-min and --defocus-max",
        )
    paths = [Path(path) for path in parameters["structures"] or write_structures(out, seed)]
    structures, plane = _read(paths, parameters)
    populations = _populations(parameters["populations"], len(structures))
    max_shift = parameters["max_shift"]
    if max_shift is None:
        max_shift = 0.05 * plane.box * plane.pixel_size
    rng = np.random.default_rng(seed)
    truth = draw_truth(
        parameters["count"],
        populations,
        rng,
        max_shift=max_shift,
        defocus=(parameters["defocus_min"], parameters["defocus_max"]),
        astigmatism=parameters["astigmatism"],
        scale_spread=parameters["scale_spread"],
        offset_spread=parameters["offset_spread"],
    )
    optics = Optics(parameters["voltage"], parameters["cs"], parameters["amplitude_contrast"], parameters["phase_shift"])
    makers = [SliceMaker(structure, plane.points()) for structure in structures]
    amplitude = None if parameters["noise_from"] is None else _noise_amplitude(parameters["noise_from"], plane)
    _write_stack(out / STACK, truth, makers, plane, optics, parameters["snr"], seed, amplitude, progress)
    _write_star(out / STAR, truth, plane, optics, with_truth=False)
    _write_star(out / TRUTH, truth, plane, optics, with_truth=True)
    counts = np.bincount(truth.structure, minlength=len(structures))
    for number, (structure, n) in enumerate(zip(structures, counts), start=1):
        logger.info("structure %d: %s (%s), %d particles", number, structure.label, structure.source, n)
    logger.info(
        "%d particles of %d pixels at %g Å: %s; their truth: %s",
        len(truth),
        plane.box,
        plane.pixel_size,
        out / STAR,
        out / TRUTH,
    )


def _populations(given: list[float] | None, count: int) -> np.ndarray:
    populations = np.ones(count) if given is None else np.asarray(given, dtype=np.float64)
    if len(populations) != count or populations.sum() <= 0:
        raise InputError(
            f"{len(populations)} populations with sum {populations.sum():g} for {count} structures",
            remedy="Give --populations one number for each structure, not all zero",
        )
    return populations


def _read(paths: list[Path], parameters: dict[str, Any]) -> tuple[list[Structure], HalfPlane]:
    """The structures, and the Fourier points up to what pixel size, structures and resolution allow."""
    names = parameters["symmetry"]
    if len(names) not in (1, len(paths)):
        raise InputError(
            f"{len(names)} symmetries for {len(paths)} structures",
            remedy="Give --symmetry once, or once for each structure",
        )
    symmetry = names * len(paths) if len(names) == 1 else names
    atomic = [kind_of(path) == "atoms" for path in paths]
    maps = {i: read_structure(paths[i], symmetry=symmetry[i]) for i in range(len(paths)) if not atomic[i]}
    first = next(iter(maps.values()), None)
    box = parameters["box"] or (first.box if first else _BOX)
    pixel = parameters["pixel"] or (first.pixel_size if first else _PIXEL)
    k_max = 1 / max(2 * pixel, parameters["resolution"] or 0)
    structures: list[Structure] = []
    for i, path in enumerate(paths):
        if atomic[i]:
            structures += read_structures(path, symmetry=symmetry[i], k_max=k_max, **atom_options(parameters))
        else:
            structures.append(maps[i])
    for structure in structures:
        if 2 * structure.radius > box * pixel:
            logger.warning(
                "structure %s is %.0f Å across, but the box only %.0f Å: it will be cut or wrap around",
                structure.label,
                2 * structure.radius,
                box * pixel,
            )
    return structures, HalfPlane(box, pixel, min([k_max, *(structure.k_max for structure in structures)]))


def _noise_amplitude(run: str, plane: HalfPlane) -> np.ndarray:
    """Root of the power of another run's noise, with variance 1 over the box: float64 [N, N // 2 + 1]."""
    ky, kx = np.fft.fftfreq(plane.box, plane.pixel_size), np.fft.fftfreq(plane.box, plane.pixel_size)
    power = mean_noise(run).power(0, np.hypot(ky[:, None], kx))
    return np.sqrt(power / power.mean())[:, : plane.box // 2 + 1]


def _write_stack(
    path: Path,
    truth: Truth,
    makers: list[SliceMaker],
    plane: HalfPlane,
    optics: Optics,
    snr: float,
    seed: int,
    amplitude: np.ndarray | None,
    progress: Progress,
) -> None:
    """Write the images, in two passes: the clean ones, whose variance gives the signal factor, then noise on
    them.
    """
    shape = (len(truth), plane.box, plane.box)
    with atomic_path(path) as temporary, mrcfile.new_mmap(temporary, shape=shape, mrc_mode=2) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = plane.pixel_size
        progress.start(2 * len(truth), "simulate", "images")
        variance = 0.0
        for structure, maker in enumerate(makers):
            members = np.flatnonzero(truth.structure == structure)
            for which in np.array_split(members, math.ceil(len(members) / _CHUNK) or 1):
                if not len(which):
                    continue
                images = clean_images(truth, which, maker, plane, optics)
                variance += float(images.var(dim=(1, 2), correction=0).sum())
                mrc.data[which] = images.numpy()
                progress.update(len(which))
        if variance == 0:
            raise InputError(
                "every image of the structures is empty",
                remedy="Check that the structures hold density within the resolution limit",
            )
        signal = math.sqrt(snr * len(truth) / variance)
        for which in np.array_split(np.arange(len(truth)), math.ceil(len(truth) / _CHUNK)):
            clean = torch.as_tensor(mrc.data[which].astype(np.float64))
            mrc.data[which] = noisy_images(clean, signal, truth, which, seed, amplitude).numpy()
            progress.update(len(which))
        progress.close()


def _write_star(path: Path, truth: Truth, plane: HalfPlane, optics: Optics, with_truth: bool) -> None:
    """Write the particles in RELION 3.1's layout; `with_truth` adds poses, class numbers and contrast."""
    group = {
        "OpticsGroup": "1",
        "OpticsGroupName": "opticsGroup1",
        "ImagePixelSize": f"{plane.pixel_size:.6f}",
        "ImageSize": str(plane.box),
        "ImageDimensionality": "2",
        "Voltage": f"{optics.voltage_kv:.6f}",
        "SphericalAberration": f"{optics.cs_mm:.6f}",
        "AmplitudeContrast": f"{optics.amplitude_contrast:.6f}",
    }
    columns: dict[str, list[str] | np.ndarray] = {
        "rlnImageName": [f"{row:06d}@{STACK}" for row in range(1, len(truth) + 1)],
        "rlnOpticsGroup": ["1"] * len(truth),
        "rlnDefocusU": truth.defocus_u,
        "rlnDefocusV": truth.defocus_v,
        "rlnDefocusAngle": truth.defocus_angle_deg,
        "rlnPhaseShift": np.full(len(truth), optics.phase_shift_deg),
    }
    if with_truth:
        columns |= {
            "rlnAngleRot": truth.rot,
            "rlnAngleTilt": truth.tilt,
            "rlnAnglePsi": truth.psi,
            "rlnOriginXAngst": truth.origin_x,
            "rlnOriginYAngst": truth.origin_y,
            "rlnClassNumber": [str(structure + 1) for structure in truth.structure],
            "cryolikeScale": truth.scale,
        }
    lines = ["# version 30001", "", "data_optics", "", "loop_"]
    lines += [f"_rln{name} #{i}" for i, name in enumerate(group, start=1)]
    lines += [" ".join(group.values()), "", "# version 30001", "", "data_particles", "", "loop_"]
    lines += [f"_{name} #{i}" for i, name in enumerate(columns, start=1)]
    texts = [values if isinstance(values, list) else [f"{value:.4f}" for value in values] for values in columns.values()]
    lines += [" ".join(row) for row in zip(*texts)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
