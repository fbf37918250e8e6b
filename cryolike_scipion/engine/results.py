"""The result of a run: scores and poses of M particles under K structures, and the files that hold them.

``matrix.npy`` is the integrated log-likelihood alone, float64, structures × particles. ``scores.h5`` has
every array with its unit and meaning, the grids, the parameters and the versions. The columns of
``particles.star`` follow from the same arrays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atomic import atomic_path
from .errors import InputError
from .fingerprint import canonical_json
from .image_stacks import OK, STATUS_NAMES
from .junk import log_evidence_of_any, robust_z
from .model_comparison import COMPARED, compare_over_set
from .particles import Particles
from .structure_posteriors import prior_probabilities, structure_posteriors

FORMAT = 2

# name: unit, meaning. [K, M]: structures × particles.
PER_STRUCTURE = {
    "integrated": ("nat", "log-likelihood integrated over poses, scale, offset and noise, less the null's"),
    "max": ("nat", "log-likelihood at the best pose, less the null's"),
    "cc": ("1", "cross-correlation at the best pose, signed"),
    "rot": ("degree", "Euler angle rot of the best pose (RELION's ZYZ convention)"),
    "tilt": ("degree", "Euler angle tilt of the best pose"),
    "psi": ("degree", "Euler angle psi of the best pose"),
    "origin_x": ("angstrom", "RELION's origin along x (columns) of the best pose"),
    "origin_y": ("angstrom", "RELION's origin along y (rows) of the best pose"),
    "best_template": ("1", "view of the table nearest to the best pose, from 1; 0 where there is none"),
    "scale": ("1", "factor of the structure's projection in the image at the best pose"),
    "structure_posterior": ("1", "posterior probability of the structure"),
    "pose_posterior": ("1", "posterior probability of poses close to the best one, given the structure"),
    "pose_entropy": ("nat", "information that the image gives on the pose, given the structure"),
    "pose_effective": ("1", "number of equally probable distinct poses that would be as spread, given the structure"),
    "pose_gap": ("nat", "log-likelihood of the best pose less that of the second best distinct one; at most 50"),
    "pose_spread": ("degree", "root mean square angle to the best pose, given the structure"),
}
PER_PARTICLE = {
    "null_log_density": ("nat", "log density of the image if it shows no particle"),
    "log_ratio_z": (
        "1",
        "robust z-score of the log-likelihood over the null, all structures together, in the particle's optics group; very "
        "negative: not like the others",
    ),
    "status": ("1", "0 ok, 1 constant, 2 nan, 3 missing"),
    "best_structure": (
        "1",
        "structure of the largest posterior, from 1; 0 where the image could not be scored",
    ),
}
_INTEGERS = {"best_template": np.int64, "status": np.uint8, "best_structure": np.int64}


@dataclass(frozen=True)
class Quantity:
    """An array with its unit and meaning, such as a grid or the scores that ``--keep`` asks for."""

    values: np.ndarray
    unit: str
    meaning: str


@dataclass(frozen=True)
class StructureEntry:
    """A structure of a result: its label, file, point group, and the hash of what it was made from.

    Entries are equal when all but the file's name is: a structure may be moved between runs.
    """

    label: str
    source: str = field(default="", compare=False)
    symmetry: str = "C1"
    sha256: str = ""


@dataclass(eq=False)
class Results:
    """Scores and poses of particles under structures.

    Images that could not be scored have 0 in every score and posterior, and their input pose: in
    ``integrated`` 0 says that no structure is preferred, since it is a ratio to the null.

    Attributes
    ----------
    integrated, max, cc, rot, tilt, psi, origin_x, origin_y, scale : float64 [K, M]
    structure_posterior, pose_posterior, pose_entropy, pose_effective, pose_gap, pose_spread : float64 [K, M]
    best_template : int64 [K, M]
        Units and meanings of all arrays are in :data:`PER_STRUCTURE` and :data:`PER_PARTICLE`.
    null_log_density, log_ratio_z : float64 [M]
    status : uint8 [M]
    best_structure : int64 [M]
    structures : list of StructureEntry, of length K
    priors : float64 [K]
        Prior probabilities of the structures; sum 1.
    image_name : list of str, of length M
        The source's name of each image.
    row : int64 [M]
        Row in the source, from 1.
    source_index : int64 [M]
        Which source.
    sources : list of str
        SHA-256 of each source's text.
    grids, extras : dict of Quantity
        Search grids; further arrays.
    parameters, versions : dict
        Of the run.
    """

    integrated: NDArray[np.float64]
    max: NDArray[np.float64]
    cc: NDArray[np.float64]
    rot: NDArray[np.float64]
    tilt: NDArray[np.float64]
    psi: NDArray[np.float64]
    origin_x: NDArray[np.float64]
    origin_y: NDArray[np.float64]
    best_template: NDArray[np.int64]
    scale: NDArray[np.float64]
    structure_posterior: NDArray[np.float64]
    pose_posterior: NDArray[np.float64]
    pose_entropy: NDArray[np.float64]
    pose_effective: NDArray[np.float64]
    pose_gap: NDArray[np.float64]
    pose_spread: NDArray[np.float64]
    null_log_density: NDArray[np.float64]
    log_ratio_z: NDArray[np.float64]
    status: NDArray[np.uint8]
    best_structure: NDArray[np.int64]
    structures: list[StructureEntry]
    priors: NDArray[np.float64]
    image_name: list[str] = field(default_factory=list)
    row: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    source_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sources: list[str] = field(default_factory=list)
    grids: dict[str, Quantity] = field(default_factory=dict)
    extras: dict[str, Quantity] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, structures: Sequence[StructureEntry], count: int, priors: ArrayLike | None = None) -> Results:
        """A result of `count` particles with 0 everywhere, for filling."""
        size = len(structures)
        arrays: dict[str, Any] = {
            name: np.zeros((size, count), dtype=_INTEGERS.get(name, np.float64)) for name in PER_STRUCTURE
        }
        arrays |= {name: np.zeros(count, dtype=_INTEGERS.get(name, np.float64)) for name in PER_PARTICLE}
        return cls(**arrays, structures=list(structures), priors=prior_probabilities(priors, size))

    @classmethod
    def from_chunks(
        cls,
        structures: Sequence[StructureEntry],
        chunks: Iterable[Mapping[str, np.ndarray]],
        priors: ArrayLike | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> Results:
        """Join the arrays of chunks, in their order, and compute the posteriors over structures.

        Parameters
        ----------
        structures : sequence of StructureEntry
        chunks : iterable of mapping of name to array
            Arrays [K, m] and [m] of the names above; those that a chunk lacks stay 0. Other names are left
            out.
        priors : array_like [K], optional
            Prior weights of the structures; equal without.
        groups : int64 [M], optional
            Optics group of each particle.
        """
        parts = list(chunks)
        count = sum(len(part["status"]) for part in parts)
        results = cls.empty(structures, count, priors)
        start = 0
        for part in parts:
            stop = start + len(part["status"])
            for name in (*PER_STRUCTURE, *PER_PARTICLE):
                if name in part:
                    getattr(results, name)[..., start:stop] = part[name]
            start = stop
        results.update_posteriors(groups=groups)
        return results

    def identify(self, particles: Particles) -> None:
        """Note which particles these are, so that runs can be merged and joined with other tables."""
        from .fingerprint import source_sha256

        self.image_name = particles.image_names()
        self.row = particles.row.copy()
        self.source_index = particles.source_index.copy()
        self.sources = [source_sha256(particles, number) for number in range(len(particles.sources))]

    @property
    def labels(self) -> list[str]:
        """Names of the structures."""
        return [entry.label for entry in self.structures]

    def update_posteriors(self, priors: ArrayLike | None = None, groups: NDArray[np.int64] | None = None) -> None:
        """Set `structure_posterior`, `best_structure` and `log_ratio_z` from `integrated`; with `priors` set these first.

        `log_ratio_z` is by optics ``groups`` [M] where they are given.
        """
        if priors is not None:
            self.priors = prior_probabilities(priors, len(self.structures))
        good = self.status == OK
        self.structure_posterior = structure_posteriors(self.integrated, self.priors)
        self.structure_posterior[:, ~good] = 0.0
        self.best_structure = np.where(good, np.argmax(self.structure_posterior, axis=0) + 1, 0)
        self.log_ratio_z = robust_z(log_evidence_of_any(self.integrated, self.priors), good, groups)

    def of_best(self, name: str) -> np.ndarray:
        """An array [K, M] at the best structure of each particle, [M]; at the first one where there is
        none. An array [M] as it is."""
        array = getattr(self, name)
        if array.ndim == 1:
            return array
        return array[np.maximum(self.best_structure, 1) - 1, np.arange(array.shape[1])]

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write ``matrix.npy`` and ``scores.h5`` into a folder, each atomically."""
        out = Path(out)
        with atomic_path(out / "matrix.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, np.ascontiguousarray(self.integrated, dtype=np.float64), allow_pickle=False)
        with atomic_path(out / "scores.h5") as temporary:
            _write_hdf5(temporary, self)


def columns_for_star(results: Results, particles: Particles | None = None) -> dict[str, np.ndarray | list[str]]:
    """Columns of ``particles.star``, for :func:`~cryolike_scipion.engine.particle_star.write_particles`.

    Parameters
    ----------
    results : Results
    particles : Particles, optional
        The same particles: images that could not be scored get the poses these have. Without it they get what
        `results` holds.

    Returns
    -------
    dict of label to array [M]
        Values of the best structure; angles in degrees, origins in Å, log-likelihoods in nat. Images that
        could not be scored have class 0 and 0 in every score.
    """
    good = results.status == OK
    best = {name: results.of_best(name) for name in PER_STRUCTURE}
    for name in PER_STRUCTURE:
        if name not in ("rot", "tilt", "psi", "origin_x", "origin_y"):
            best[name] = np.where(good, best[name], 0)
        elif particles is not None:
            best[name] = np.where(good, best[name], getattr(particles, name))
    return {
        "rlnAngleRot": best["rot"],
        "rlnAngleTilt": best["tilt"],
        "rlnAnglePsi": best["psi"],
        "rlnOriginXAngst": best["origin_x"],
        "rlnOriginYAngst": best["origin_y"],
        "rlnClassNumber": results.best_structure,
        "rlnLogLikeliContribution": best["integrated"],
        "rlnMaxValueProbDistribution": best["pose_posterior"] * best["structure_posterior"],
        "cryolikeCrossCorrelation": best["cc"],
        "cryolikeLogLikelihood": best["integrated"],
        "cryolikeLogLikelihoodMax": best["max"],
        "cryolikeLogLikelihoodNull": np.where(good, results.null_log_density, 0.0),
        "cryolikeBestStructure": results.best_structure,
        "cryolikeBestTemplate": best["best_template"],
        "cryolikeStatus": [STATUS_NAMES[status] for status in results.status],
        "cryolikeStructurePosterior": best["structure_posterior"],
        "cryolikePosePosterior": best["pose_posterior"],
        "cryolikePoseEntropy": best["pose_entropy"],
        "cryolikePoseEffective": best["pose_effective"],
        "cryolikePoseGap": best["pose_gap"],
        "cryolikePoseSpread": best["pose_spread"],
        "cryolikeLogRatioZ": np.where(good, results.log_ratio_z, 0.0),
        "cryolikeScale": best["scale"],
    }


def load_results(out: str | os.PathLike[str]) -> Results:
    """Read the result of a run.

    Parameters
    ----------
    out : path
        The output folder, or its ``scores.h5``.

    Raises
    ------
    InputError
        If there is no result, or it is of another format.
    """
    with _scores(out) as file:
        return _read_hdf5(file)


def find_row(out: str | os.PathLike[str], source: str, row: int) -> int | None:
    """The place (from 0) of a row (from 1) of a source (its SHA-256) in a run, or None; the scores are not read.

    Raises
    ------
    InputError
        As :func:`load_results`.
    """
    with _scores(out) as file:
        group = file["particles"]
        own = np.array([name == source for name in json.loads(group.attrs["sources"])], dtype=bool)
        found = np.flatnonzero(own[group["source_index"][()]] & (group["row"][()] == row))
    return int(found[0]) if len(found) else None


@contextmanager
def _scores(out: str | os.PathLike[str]) -> Iterator[h5py.File]:
    path = Path(out)
    path = path / "scores.h5" if path.is_dir() else path
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(
                    f"the result has format {file.attrs.get('format')}, not {FORMAT}",
                    path,
                    remedy="Read it with the version that made it, or run the scoring again",
                )
            yield file
    except FileNotFoundError:
        raise InputError("there is no result", path, remedy="Give the output folder of a finished run") from None
    except OSError as error:
        raise InputError(f"the result cannot be read ({error})", path, remedy="Run the scoring again") from None


def _write_hdf5(path: Path, results: Results) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["parameters"] = canonical_json(results.parameters)
        file.attrs["versions"] = canonical_json(results.versions)
        file.attrs["structures"] = canonical_json([vars(entry) for entry in results.structures])
        file.attrs["status_names"] = canonical_json(STATUS_NAMES)
        for name, (unit, meaning) in (PER_STRUCTURE | PER_PARTICLE).items():
            axes = "structures × particles" if name in PER_STRUCTURE else "particles"
            _dataset(file, name, Quantity(getattr(results, name), unit, f"{meaning} [{axes}]"))
        _dataset(file, "priors", Quantity(results.priors, "1", "prior probability of each structure"))
        _write_comparison(file, results)
        group = file.create_group("particles")
        names = [name.encode("utf-8", "surrogateescape") for name in results.image_name]
        _dataset(group, "image_name", Quantity(np.array(names, dtype="S"), "", "the source's name of the image"))
        _dataset(group, "row", Quantity(results.row, "1", "row in the source's particle table, from 1"))
        _dataset(group, "source_index", Quantity(results.source_index, "1", "which source, from 0"))
        group.attrs["sources"] = canonical_json(results.sources)
        for title, quantities in (("grid", results.grids), ("extra", results.extras)):
            group = file.create_group(title)
            for name, quantity in quantities.items():
                _dataset(group, name, quantity)


def _write_comparison(file: h5py.File, results: Results) -> None:
    """Which structure the whole set prefers; follows from `integrated`, and is not read back."""
    good = results.status == OK
    if not good.any():
        return
    found = compare_over_set(results.integrated[:, good])
    group = file.create_group("comparison")
    for name, unit, meaning in COMPARED:
        _dataset(group, name, Quantity(getattr(found, name), unit, f"{meaning} [structures]"))


def _dataset(group: h5py.Group, name: str, quantity: Quantity) -> None:
    dataset = group.create_dataset(name, data=quantity.values)
    dataset.attrs["unit"] = quantity.unit
    dataset.attrs["meaning"] = quantity.meaning


def _read_hdf5(file: h5py.File) -> Results:
    group = file["particles"]
    return Results(
        **{name: file[name][()] for name in (*PER_STRUCTURE, *PER_PARTICLE)},
        structures=[StructureEntry(**entry) for entry in json.loads(file.attrs["structures"])],
        priors=file["priors"][()],
        image_name=[name.decode("utf-8", "surrogateescape") for name in group["image_name"][()].tolist()],
        row=group["row"][()],
        source_index=group["source_index"][()],
        sources=json.loads(group.attrs["sources"]),
        grids=_quantities(file["grid"]),
        extras=_quantities(file["extra"]),
        parameters=json.loads(file.attrs["parameters"]),
        versions=json.loads(file.attrs["versions"]),
    )


def _quantities(group: h5py.Group) -> dict[str, Quantity]:
    return {name: Quantity(item[()], item.attrs["unit"], item.attrs["meaning"]) for name, item in group.items()}
