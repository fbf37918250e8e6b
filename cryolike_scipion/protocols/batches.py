"""Particles of a run in batches: one engine run, one step and one folder each.

A batch is done when its result is there together with ``done.json``, which holds the hash of everything that decides the
result: parameters, the STAR file with its particles, and the image stacks. A run that is continued finds its batches by
their folders, so that nothing is lost or repeated, whether Scipion, the machine or a queue stopped it.
"""

import hashlib
import json
import os
import re
import shutil

from ..constants import INPUT_STAR, ITEM_ID, JOB_FILE, RESULT_FOLDER
from ..convert.particles import write_particles
from ..convert.star import read_columns

BATCH_FOLDER = "batches"
MERGED_FILE = "merged.json"  # which batches the joint result is of
_DONE = "done.json"
_NAME = re.compile(r"\d{6}\Z")


class Batch:
    """Some particles of a run and the folder of their engine run.

    Attributes
    ----------
    number : int
        From 1.
    folder : str
        Relative to the project's folder, which is the working directory.
    ids : list of int
        Of the Scipion items.
    signature : str
        Hash of what decides the result, once :meth:`write` was called.
    """

    def __init__(self, number, folder, ids):
        self.number, self.folder, self.ids = number, folder, ids
        self.signature = None

    @property
    def star(self):
        """The STAR file with the particles."""
        return os.path.join(self.folder, INPUT_STAR)

    @property
    def job(self):
        """The engine's job file."""
        return os.path.join(self.folder, JOB_FILE)

    def result(self, name=""):
        """Return a file of the result."""
        return os.path.join(self.folder, RESULT_FOLDER, name)

    def write(self, particles, names, key, original=None):
        """Write the STAR file and set the signature.

        Parameters
        ----------
        particles : the input set.
        names : StackNames
        key : text that decides the result besides the particles.
        original : OriginalStar
            The file that the particles were imported from.
        """
        os.makedirs(self.folder, exist_ok=True)
        write_particles(particles, self.star, names, set(self.ids), original)
        digest = hashlib.sha256(key.encode("ascii"))
        with open(self.star, "rb") as stream:
            digest.update(stream.read())
        images = read_columns(self.star, "particles", ["rlnImageName"])["rlnImageName"]
        for stack in sorted({name.split("@", 1)[1] for name in images}):
            digest.update(repr(file_identity(stack)).encode("utf-8", "surrogateescape"))
        self.signature = digest.hexdigest()

    def is_done(self, result):
        """Whether the engine has finished this batch as it is now; `result` is the file that proves it."""
        try:
            with open(os.path.join(self.folder, _DONE), encoding="ascii") as stream:
                return json.load(stream)["signature"] == self.signature and os.path.exists(self.result(result))
        except (OSError, ValueError, KeyError):
            return False

    def set_done(self):
        """Note that the engine has finished."""
        write_json(os.path.join(self.folder, _DONE), {"signature": self.signature})


def stored_batches(folder):
    """Return the batches that an earlier start of the run left: list of Batch, in their order.

    Parameters
    ----------
    folder : the protocol's extra folder.
    """
    root = os.path.join(folder, BATCH_FOLDER)
    names = sorted(name for name in os.listdir(root) if _NAME.match(name)) if os.path.isdir(root) else []
    found = []
    for name in names:
        batch = Batch(int(name), os.path.join(root, name), [])
        if os.path.exists(batch.star):
            batch.ids = [int(text) for text in read_columns(batch.star, "particles", [ITEM_ID])[ITEM_ID]]
            found.append(batch)
    return found


def batch_folder(folder, number):
    """Return the folder of a batch."""
    return os.path.join(folder, BATCH_FOLDER, f"{number:06d}")


def forget_batches(folder):
    """Remove all batches and their results, and the notes of what the result in `folder` itself is made."""
    for name in (MERGED_FILE, _DONE):
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    shutil.rmtree(os.path.join(folder, BATCH_FOLDER), ignore_errors=True)


def file_identity(path):
    """Return what tells a file from another one without reading it: name, size, time of its last change."""
    if not os.path.exists(path):
        return [path, None, None]
    status = os.stat(path)
    return [path, status.st_size, status.st_mtime_ns]


def write_json(path, content):
    """Write a JSON file, whole or not at all."""
    with open(path + ".tmp", "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, ensure_ascii=False, sort_keys=True)
    os.replace(path + ".tmp", path)


def read_json(path):
    """Return the content of a JSON file, None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None
