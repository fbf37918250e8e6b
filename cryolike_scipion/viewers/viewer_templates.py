"""Templates to look at: projections with their angles, views on the sphere, power, slices of the density."""

import os

import h5py
import mrcfile
import numpy as np
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from ..convert.results import preview_views
from ..objects import SetOfCryolikeTemplates
from ..plots import templates as plots
from ..plots import volumes
from ..plots.style import empty
from ..protocols import ProtCryolikeGenerateTemplates
from .densities import read_density
from .windows import FigureWindow

_MOST = 60
_CURVES = 8
_NO_PREVIEW = "No projections were written to look at.\nRun the node again with a preview of more than 0 views."


class CryolikeTemplatesViewer(Viewer):
    """A window with the templates of every structure."""

    _label = "viewer of templates"
    _targets = [SetOfCryolikeTemplates, ProtCryolikeGenerateTemplates]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        templates = obj if isinstance(obj, SetOfCryolikeTemplates) else getattr(obj, "outputTemplates", None)
        if templates is None:
            return [self.errorMessage("The node has not finished yet.", "Templates")]
        items = [item.clone() for item in templates.iterItems()]
        labels = [item.getLabel() for item in items]

        def make(label):
            item = items[labels.index(label)]
            return [
                ("Projections", lambda: _montage(item)),
                ("Views", lambda: _views(item)),
                ("Power spectra", lambda: _power(items)),
                ("Density", lambda: volumes.slices_and_projections(*_density(item))),
            ]

        return [FigureWindow("Templates", make, labels, self.getTkRoot())]


def _density(item):
    density, pixel = read_density(item.getFileName())
    return density, item.getLabel(), pixel


def _table(item):
    with h5py.File(item.getFileName(), "r") as file:
        return tuple(file["views"][name][()] for name in ("rot", "tilt", "weight"))


def _has_preview(item):
    return bool(item.getPreview()) and os.path.exists(item.getPreview())


def _montage(item):
    if not _has_preview(item):
        return empty(_NO_PREVIEW)
    rot, tilt, _ = _table(item)
    with mrcfile.mmap(item.getPreview(), permissive=True) as file:
        stack = file.data if file.data.ndim == 3 else file.data[None]
        step = max(1, -(-len(stack) // _MOST))
        images = stack[::step].copy()
    numbers = np.array(preview_views(item)[::step])
    captions = plots.angle_captions(numbers, rot[numbers - 1], tilt[numbers - 1])
    return plots.montage(images, captions, f"{item.getLabel()}: {len(images)} of {item.getViews()} views (rot, tilt)")


def _views(item):
    rot, tilt, weight = _table(item)
    return plots.view_sphere(rot, tilt, weight, f"{item.getLabel()}, {item.getSymmetry()}: {len(rot)} views")


def _power(items):
    shown = [item for item in items if _has_preview(item)][:_CURVES]
    if not shown:
        return empty(_NO_PREVIEW)
    curves = []
    for item in shown:
        with mrcfile.mmap(item.getPreview(), permissive=True) as file:
            stack = file.data if file.data.ndim == 3 else file.data[None]
            curves.append(plots.radial_power(stack[:_MOST], float(file.voxel_size.x)))
    return plots.power_spectrum(curves[0][0], [power for _, power in curves], [item.getLabel() for item in shown])
