"""Find the demo's data, and compare the answer with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryolike_scipion.convert.poses import poses_from_transforms
from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.particles import Particles, read_particles
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

ATOMIC = (".pdb", ".cif")


@dataclass(frozen=True)
class DemoData:
    """A STAR file, structures, and the particles with their true poses where they are known.

    `truth_kind` says what the poses of `truth` are: "truth", "the STAR file's own poses", or "" without any.
    """

    star: Path
    structures: list
    particles: Particles
    truth: Particles | None
    truth_kind: str

    @classmethod
    def of(cls, star, structures, truth=None):
        """Read the particles, and the truth beside them or the poses in their own file."""
        particles = read_particles([star])
        if truth is not None:
            return cls(star, list(structures), particles, read_particles([truth]), "truth")
        if particles.has_pose:
            return cls(star, list(structures), particles, particles, "the STAR file's own poses")
        return cls(star, list(structures), particles, None, "")


@dataclass(frozen=True)
class Answer:
    """Structure (from 1), pose (degree, Å) and posterior of each particle, from Scipion's output set."""

    structure: np.ndarray
    rot: np.ndarray
    tilt: np.ndarray
    psi: np.ndarray
    origin_x: np.ndarray
    origin_y: np.ndarray
    posterior: np.ndarray


def find_data(path, structures=None):
    """Return the particles and structures in a folder, or beside a STAR file.

    Structures are cubic maps (``.mrc``, ``.map``) and atomic models (``.pdb``, ``.cif``), in the order of
    their names; the truth is a file of the same name with ``_truth``.
    """
    if not path.exists():
        raise SystemExit(f"{path} does not exist; give a folder or a STAR file as DATA.")
    path = path.resolve()
    stars = [path] if path.is_file() else [star for star in sorted(path.glob("*.star")) if "truth" not in star.stem]
    if len(stars) != 1:
        raise SystemExit(f"{path} holds {len(stars)} STAR files; give one of them as DATA.")
    star = stars[0]
    found = [Path(name).resolve() for name in structures or ()] or [
        file for file in sorted(star.parent.iterdir()) if file.suffix in ATOMIC or _is_map(file)
    ]
    if not found:
        raise SystemExit(f"There is no map and no atomic model beside {star}; name some with --structures.")
    truth = star.with_name(f"{star.stem}_truth.star")
    return DemoData.of(star, found, truth if truth.exists() else None)


def _is_map(path):
    import mrcfile

    if path.suffix not in (".mrc", ".map"):
        return False
    with mrcfile.open(path, header_only=True, permissive=True) as mrc:
        return mrc.header.nx == mrc.header.ny == mrc.header.nz


def read_scipion_answer(particles):
    """Read the annotated particles of the likelihood node."""
    items = [item.clone() for item in particles.iterItems()]
    matrices = np.array([item.getTransform().getMatrix() for item in items])
    poses = poses_from_transforms(matrices, particles.getSamplingRate())
    structure = np.array([item._cryolike_bestStructure.get() for item in items])
    return Answer(structure, *poses, np.array([item._cryolike_structurePosterior.get() for item in items]))


def compare(data, answer, group="C1"):
    """Return what was found, against the truth where it is known, as text."""
    count = len(data.structures)
    lines = [
        "particles per structure: "
        + ", ".join(f"{path.stem} {int((answer.structure == k).sum())}" for k, path in enumerate(data.structures, start=1))
    ]
    if count > 1:
        lines.append(f"mean posterior of the chosen structure: {answer.posterior.mean():.3f}")
    if data.truth is None:
        return "\n".join([*lines, "There is no truth to compare with."])
    lines.append(f"compared with {data.truth_kind}:")
    if count > 1 and data.truth_kind == "truth":
        right = (answer.structure == data.truth.class_number).mean()
        lines.append(f"  structure accuracy      {100 * right:.1f} %")
    angle, shift = pose_errors(data.truth, answer, group)
    lines += [
        f"  pose error, median      {np.median(angle):.2f}°, {100 * (angle < 15).mean():.1f} % within 15°",
        f"  shift error, median     {np.median(shift):.2f} pixels",
    ]
    return "\n".join(lines)


def pose_errors(truth, answer, group="C1"):
    """Return the angles (degree) between true and found orientations, and the distances (pixel) of their
    origins.
    """
    true = matrix_from_euler(truth.rot, truth.tilt, truth.psi)
    found = matrix_from_euler(answer.rot, answer.tilt, answer.psi)
    pixel = np.array([optics.pixel_size for optics in truth.optics])[truth.optics_index]
    shift = np.hypot(answer.origin_x - truth.origin_x, answer.origin_y - truth.origin_y) / pixel
    return distance_deg(true, found, symmetry.rotations(group)), shift
