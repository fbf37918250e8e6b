"""Templates to look at: projections of each structure."""

import os

import mrcfile
from pwem.viewers import EmPlotter
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from ..convert.results import preview_views
from ..objects import SetOfCryolikeTemplates
from ..protocols import ProtCryolikeGenerateTemplates
from .plots import COLUMNS, draw_montage

_MOST = 50


class CryolikeTemplatesViewer(Viewer):
    """A montage of the projections of every structure, at most fifty of each."""

    _label = "viewer of templates"
    _targets = [SetOfCryolikeTemplates, ProtCryolikeGenerateTemplates]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        templates = obj if isinstance(obj, SetOfCryolikeTemplates) else getattr(obj, "outputTemplates", None)
        if templates is None:
            return [self.errorMessage("The node has not finished yet.", "Templates")]
        views = [
            self._montage(item) for item in templates.iterItems() if item.getPreview() and os.path.exists(item.getPreview())
        ]
        return views or [
            self.errorMessage(
                "No projections were written to look at. Run the node again with a preview of more than 0 views.",
                "Templates",
            )
        ]

    @staticmethod
    def _montage(item):
        with mrcfile.mmap(item.getPreview(), permissive=True) as file:
            stack = file.data if file.data.ndim == 3 else file.data[None]
            step = max(1, -(-len(stack) // _MOST))
            images = stack[::step].copy()
        rows = -(-len(images) // COLUMNS)
        plotter = EmPlotter(windowTitle=item.getLabel(), figsize=(10, 1.2 * rows + 0.6))
        draw_montage(
            plotter.getFigure(),
            images,
            [str(number) for number in preview_views(item)[::step]],
            f"{item.getLabel()}: {len(images)} of {item.getViews()} views",
        )
        return plotter
