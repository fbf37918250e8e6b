"""Log-likelihoods of particles under structures, from a run's folder or from a matrix of another program."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .image_stacks import OK
from .results import load_results
from .structures import one_each

__all__ = ["LikelihoodMatrix", "read_matrix"]

NONE = "none of these"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class LikelihoodMatrix:
    """Log-likelihoods and what they are of.

    Attributes
    ----------
    values : float [K, M]
        nat; possibly in a mapped file.
    labels : list of str
        Of the structures.
    over_null : bool or None
        Whether the values are over those of an image without particle; None where nothing says it.
    left_out : int
        Particles of the source that could not be scored; they are not among the M.
    """

    values: NDArray[np.floating]
    labels: list[str]
    over_null: bool | None
    left_out: int = 0

    def with_none(self, source: Path) -> LikelihoodMatrix:
        """With one more structure, "none of these", whose log-likelihood over the null is 0.

        Raises
        ------
        InputError
            If the values are not over the null.
        """
        if self.over_null is False:
            raise InputError(
                "with a flat contrast prior likelihoods cannot be compared with those of an image without particle",
                source,
                remedy="Score with --scale learned, or leave out --with-none",
            )
        values = np.concatenate([self.values, np.zeros((1, self.values.shape[1]))])
        return LikelihoodMatrix(values, [*self.labels, NONE], self.over_null, self.left_out)


def read_matrix(source: Path, orientation: str, labels: Sequence[str] | None) -> LikelihoodMatrix:
    """Read a run's folder, a ``.npy`` file, or a text table.

    Parameters
    ----------
    source : path
    orientation : str
        What the rows of a file are: "structures" or "particles". A run's folder knows itself.
    labels : sequence of str, optional

    Raises
    ------
    InputError
        If there is no such matrix, or a value is not finite.
    """
    if source.is_dir() or source.name == "scores.h5":
        return _of_run(source, labels)
    if source.suffix.lower() == ".npy":
        values = _array(source)
    elif source.suffix.lower() in (".csv", ".txt", ".tsv", ".dat"):
        values = _table(source)
    else:
        raise InputError("neither a run's folder nor a matrix", source, remedy="Give a folder, or a .npy, .csv or .txt file")
    values = values if orientation == "structures" else values.T
    if values.shape[0] < 2 or values.shape[1] < 1:
        raise InputError(
            f"the matrix holds {values.shape[0]} structures and {values.shape[1]} particles",
            source,
            remedy="At least two structures and a particle are needed; see --orientation",
        )
    if values.shape[0] > values.shape[1]:
        raise InputError(
            f"the matrix holds more structures ({values.shape[0]}) than particles ({values.shape[1]})",
            source,
            remedy=f"Its rows are probably {'particles' if orientation == 'structures' else 'structures'}: see --orientation",
        )
    _refuse_infinite(values, source, orientation)
    given = list(labels or [str(k + 1) for k in range(len(values))])
    return LikelihoodMatrix(values, list(one_each(given, len(values), "labels", spread=False)), None)


def _of_run(source: Path, labels: Sequence[str] | None) -> LikelihoodMatrix:
    results = load_results(source)
    good = results.status == OK
    if len(results.structures) < 2 or not good.any():
        raise InputError(
            f"the run has {len(results.structures)} structures and {int(good.sum())} particles that could be scored",
            source,
            remedy="Populations need at least two structures and a particle",
        )
    names = list(one_each(list(labels), len(results.labels), "labels", spread=False)) if labels else results.labels
    over_null = results.parameters.get("scale") == "learned"
    return LikelihoodMatrix(results.integrated[:, good], names, over_null, int((~good).sum()))


def _array(source: Path) -> NDArray[np.floating]:
    try:
        values = np.load(source, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError("there is no such file", source, remedy="Check the name") from None
    except (OSError, ValueError) as error:
        raise InputError(f"the matrix cannot be read ({error})", source, remedy="Write it with numpy.save") from None
    if values.ndim != 2 or values.dtype.kind != "f":
        raise InputError(
            f"an array of {values.ndim} dimensions and type {values.dtype}", source, remedy="Give a matrix of real numbers"
        )
    return values


def _table(source: Path) -> NDArray[np.float64]:
    try:
        with open(source, newline="", encoding="utf-8") as stream:
            delimiter = "," if source.suffix.lower() == ".csv" else None
            lines = csv.reader(stream) if delimiter else (line.split() for line in stream)
            rows: list[list[float]] = []
            for number, words in enumerate(lines, start=1):
                if not words or words[0].startswith("#"):
                    continue
                try:
                    rows.append([float(word) for word in words])
                except ValueError:
                    raise InputError(
                        f"'{' '.join(words)[:40]}' is not a row of numbers", source, number, "Give numbers only"
                    ) from None
                if len(rows[-1]) != len(rows[0]):
                    raise InputError(
                        f"{len(rows[-1])} numbers where the first row has {len(rows[0])}", source, number, "Give a full matrix"
                    )
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the matrix cannot be read ({error})", source, remedy="Check the file") from None
    if not rows:
        raise InputError("the table holds no numbers", source, remedy="Give a row for each structure or particle")
    return np.array(rows, dtype=np.float64)


def _refuse_infinite(values: NDArray[np.floating], source: Path, orientation: str) -> None:
    step = max(1, _BLOCK // values.shape[0])
    for start in range(0, values.shape[1], step):
        bad = np.argwhere(~np.isfinite(values[:, start : start + step]))
        if len(bad):
            structure, particle = int(bad[0, 0]), int(bad[0, 1]) + start
            row, column = (structure, particle) if orientation == "structures" else (particle, structure)
            raise InputError(
                f"column {column + 1} is {values[structure, particle]}", source, row + 1, "Give finite log-likelihoods"
            )
