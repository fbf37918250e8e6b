"""A run that can be stopped at any moment: its manifest, and one file for each finished chunk of particles.

In the output folder, ``manifest.json`` describes the current run; ``chunks/HASH16.json`` is the same, kept
under the hash of everything that decides the result, and ``chunks/HASH16_000012.npz`` is a finished chunk. A
run with the same hash goes on with the boundaries and the scale prior that it began with; another hash has
other names, so results of different parameters never mix. What earlier parameters left is removed when a run
finishes, or by a restart.
"""

from __future__ import annotations

import fcntl
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from .atomic import atomic_path, remove_leftovers, write_bytes
from .errors import InputError
from .fingerprint import canonical_json, fingerprint

_FORMAT = 1
_NAME_DIGITS = 16


@dataclass(eq=False)
class Manifest:
    """What a run computes and how it is cut into chunks; only one process at a time holds it.

    Attributes
    ----------
    out : Path
        The output folder.
    decides : dict
        Everything that decides the result, as given.
    hash : str
        SHA-256 of `decides`.
    boundaries : tuple of int
        Chunk i is particles ``boundaries[i]`` to ``boundaries[i + 1] - 1``.
    scale_prior : dict or None
        The learned prior, once :meth:`set_scale_prior` was called.
    versions : dict
        Of the programs that began the run.
    finished : bool
    """

    out: Path
    decides: dict[str, Any]
    hash: str
    boundaries: tuple[int, ...]
    scale_prior: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    _lock: IO[bytes] | None = None

    @classmethod
    def open(
        cls,
        out: str | os.PathLike[str],
        decides: Mapping[str, Any],
        boundaries: Sequence[int] | Callable[[], Sequence[int]],
        *,
        versions: Mapping[str, str] | None = None,
        restart: bool = False,
    ) -> Manifest:
        """Begin a run in a folder, or go on with the one that was begun there with the same `decides`.

        Parameters
        ----------
        out : path
            Output folder; made when it is missing.
        decides : mapping
            Everything that decides the result, with JSON values: parameters, the engine's version, and the
            identities of particles and structures (:mod:`~cryolike_scipion.engine.fingerprint`).
        boundaries : sequence of int, or a function that gives it
            First particle of each chunk, and the number of particles at the end; for a new run only.
        versions : mapping, optional
            Noted in the manifest.
        restart : bool
            Forget finished work.

        Raises
        ------
        InputError
            If the folder cannot be written to, or another process runs in it.
        """
        out = Path(out)
        digest = fingerprint(decides)
        manifest = cls(out, json.loads(canonical_json(decides)), digest, (), None, dict(versions or {}))
        manifest._lock = _take_lock(out)
        try:
            manifest._begin(boundaries, restart)
        except BaseException:
            manifest.close()
            raise
        return manifest

    def _begin(self, boundaries: Sequence[int] | Callable[[], Sequence[int]], restart: bool) -> None:
        chunks = self.out / "chunks"
        remove_leftovers(self.out)
        remove_leftovers(chunks)
        if restart:
            _remove_chunks(chunks, keep=None)
        old = _load(self.chunk_file(".json"), self.hash)
        if old is not None:
            self.boundaries = tuple(old["boundaries"])
            self.scale_prior = old["scale_prior"]
            self.versions = old["versions"]
            self.finished = old["finished"]
        else:
            found = boundaries() if callable(boundaries) else boundaries
            self.boundaries = tuple(int(b) for b in found)
            if self.boundaries[:1] != (0,) or any(np.diff(self.boundaries) <= 0):
                raise ValueError(f"chunk boundaries do not rise from 0: {self.boundaries}")
        self.save()

    @property
    def ranges(self) -> list[range]:
        """Indices of the particles of each chunk."""
        return [range(a, b) for a, b in zip(self.boundaries, self.boundaries[1:])]

    def chunk_file(self, ending: str) -> Path:
        """A path in the chunk folder that carries the hash."""
        return self.out / "chunks" / f"{self.hash[:_NAME_DIGITS]}{ending}"

    def set_scale_prior(self, values: Mapping[str, Any]) -> None:
        """Keep the learned scale prior, so that a resumed run does not learn another one."""
        self.scale_prior = json.loads(canonical_json(values))
        self.save()

    def finish(self) -> None:
        """Mark the run as finished and remove what runs with other parameters left."""
        self.finished = True
        self.save()
        _remove_chunks(self.out / "chunks", keep=self.hash[:_NAME_DIGITS])

    def save(self) -> None:
        """Write the manifest, atomically."""
        content = {
            "format": _FORMAT,
            "hash": self.hash,
            "decides": self.decides,
            "boundaries": self.boundaries,
            "scale_prior": self.scale_prior,
            "versions": self.versions,
            "finished": self.finished,
        }
        data = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("ascii")
        write_bytes(self.chunk_file(".json"), data)
        write_bytes(self.out / "manifest.json", data)

    def close(self) -> None:
        """Let another process run in the folder; also happens when this process ends."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Manifest:
        """Use as ``with Manifest.open(...) as manifest``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class ChunkStore:
    """The results of finished chunks of a run.

    Parameters
    ----------
    manifest : Manifest
        The run; its hash is in every name.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def path(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self._manifest.chunk_file(f"_{chunk:06d}.npz")

    def has(self, chunk: int) -> bool:
        """Whether a chunk is finished; a file that is damaged does not count."""
        return zipfile.is_zipfile(self.path(chunk))

    def missing(self) -> list[int]:
        """Chunks that are not finished, in order."""
        return [i for i in range(len(self._manifest.ranges)) if not self.has(i)]

    def write(self, chunk: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store the result of a chunk, atomically.

        Raises
        ------
        ValueError
            If an array holds Python objects, which could be read back only by unpickling.
        """
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in plain.items():
            if array.dtype.hasobject:
                raise ValueError(f"the array {name} holds Python objects")
        with atomic_path(self.path(chunk)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **plain)

    def read(self, chunk: int) -> dict[str, np.ndarray]:
        """The arrays of a finished chunk.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        path = self.path(chunk)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"the result of chunk {chunk} cannot be read ({error})",
                path,
                remedy="Remove the file and start the run again: it computes only this chunk",
            ) from None


def read_manifest(out: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of the run in a folder, for programs that only look.

    Returns
    -------
    dict
        ``hash``, ``decides``, ``boundaries``, ``scale_prior``, ``versions`` and ``finished``.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(out) / "manifest.json"
    content = _load(path, None)
    if content is None:
        raise InputError("the folder has no manifest of a run", path, remedy="Give the output folder of a run")
    return content


def _load(path: Path, digest: str | None) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return None
    return content if digest in (None, content.get("hash")) else None


def _take_lock(out: Path) -> IO[bytes]:
    try:
        (out / "chunks").mkdir(parents=True, exist_ok=True)
        lock = open(out / "chunks" / ".lock", "ab")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"the output folder cannot be written to ({error.strerror})",
            out,
            remedy="Choose another with --out",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(
            "another process is running in this output folder",
            out,
            remedy="Wait for it, stop it, or choose another folder with --out",
        ) from None
    except OSError:
        # Some network file systems have no locks; there the user has to see to it.
        return lock
    return lock


def _remove_chunks(chunks: Path, keep: str | None) -> None:
    for pattern in ("*.npz", "*.json"):
        for path in chunks.glob(pattern):
            if keep is None or not path.name.startswith(keep):
                path.unlink(missing_ok=True)
