"""File names that the engine can read: plain, and in a format it knows.

Names stay relative to the project's folder where Scipion has them so, which is the working directory of every
step: a project can be moved, and results in it still find their images.

A stack's name goes into a STAR file, which has no room for spaces, quotes or line feeds; such a file is
linked under a plain name in the protocol's own folder.
A format that the engine does not read is converted there.
"""

import os
import re

import mrcfile
import numpy as np
from pwem.emlib.image import ImageHandler
from tifffile import TiffFile

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+:,=~-]*\Z")
_SOURCE = "_source"
_TIFF = (".tif", ".tiff")
STACK_EXTENSIONS = (".mrcs", ".mrc", ".st", ".ali", ".map")


def is_plain(path):
    """Whether a path can stand in a STAR file, a shell command and a ``%`` format as it is."""
    return bool(_PLAIN.match(path))


def file_of(location):
    """Return a location's file, without the ``:mrcs`` that Xmipp adds to some."""
    return re.sub(r":mrcs?\Z", "", location)


class StackNames:
    """Names for the image stacks of a set, each made once.

    Parameters
    ----------
    folder : where links and converted stacks go, relative to the project's folder, which is the working
        directory; made when it is first needed.

    Attributes
    ----------
    converted : list of str
        The stacks that were written anew, because the engine does not read their format.
    """

    def __init__(self, folder):
        self._folder = folder
        self._names = {}
        self.converted = []

    def formats(self):
        """Return the endings of the stacks that were converted, each once."""
        return sorted({os.path.splitext(stack)[1].lower() for stack in self.converted})

    def __call__(self, stack):
        """Return the name of `stack` for the STAR file."""
        if stack not in self._names:
            self._names[stack] = self._make(stack, len(self._names) + 1)
        return self._names[stack]

    def _make(self, stack, number):
        path = file_of(stack)
        readable = os.path.splitext(path)[1].lower() in STACK_EXTENSIONS
        if readable and is_plain(path):
            return path
        os.makedirs(self._folder, exist_ok=True)
        name = os.path.join(self._folder, f"stack{number:05d}.mrcs")
        if readable:
            link(path, name)
        else:
            if not _is_converted(path, name):
                _convert(link_source(path, name), name)
            self.converted.append(path)
        return name


def _convert(source, name):
    """Write a stack in another format as MRC; `name` appears only when it is complete.

    It gets its source's time, so that a run which is continued sees the same images and repeats nothing.
    """
    status = os.stat(source)  # before it is read: what is written to it meanwhile must not count as converted
    part = os.path.splitext(name)[0] + "_part.mrcs"
    if os.path.splitext(source)[1].lower() in _TIFF:
        # Scipion's own readers take some multi-page files for one image.
        with TiffFile(source) as file, mrcfile.new(part, overwrite=True) as target:
            pages = [page.asarray() for page in file.pages]  # one page may hold several images, too
            images = np.concatenate([page.reshape((-1,) + page.shape[-2:]) for page in pages])
            target.set_data(images.astype(np.float32))
            target.set_image_stack()
    else:
        ImageHandler().convertStack(source, part)
    os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(part, name)


def _is_converted(source, name):
    """Whether an earlier start has made the file `name` of `source` as it is now."""
    beside = _beside(source, name)
    if os.path.islink(name) or not (os.path.isfile(name) and os.path.exists(beside)):
        return False
    return os.path.samefile(beside, source) and os.stat(source).st_mtime_ns == os.stat(name).st_mtime_ns


def _beside(source, name):
    """Return the name of the link to `source` beside the file `name` that is made of it."""
    return os.path.splitext(name)[0] + _SOURCE + os.path.splitext(source)[1].lower()


def link_source(source, name):
    """Link `source` beside the file `name` that is made of it; return the link, which has a plain name."""
    beside = _beside(source, name)
    link(source, beside)
    return beside


def user_files(folder):
    """Return the files that were linked or made in `folder`, each with the user's file that it stands for."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = {}
    for name in names:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            stem = os.path.splitext(name)[0]
            made = stem[: -len(_SOURCE)] if stem.endswith(_SOURCE) else None
            stands_for = [each for each in names if made and os.path.splitext(each)[0] == made] or [name]
            found.update({os.path.join(folder, each): os.path.realpath(path) for each in stands_for})
    return found


def link(source, name):
    """Make the symbolic link `name` to `source`, in place of whatever link has this name.

    A file of the project is linked by its relative name, so that the link survives when the project is moved.
    """
    project, target = os.getcwd(), os.path.abspath(source)
    if os.path.commonpath([project, target]) == project:
        target = os.path.relpath(target, os.path.dirname(os.path.abspath(name)))
    temporary = name + ".tmp"
    if os.path.lexists(temporary):
        os.remove(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, name)
