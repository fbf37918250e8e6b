"""Particles in Scipion's metadata viewer, with our columns visible."""

from pwem.objects import SetOfParticles
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from ..objects import ATTRIBUTE_PREFIX, SCORE_ATTRIBUTES

_FIRST = ("id", "enabled", "_index", "_filename")
_LAST = ("_ctfModel._defocusU", "_ctfModel._defocusV", "_transform._matrix")
_RENDERED = "_filename"


class CryolikeMDView(MDView):
    """The metadata viewer; it hides columns it does not know unless they are named."""

    def getVisibleAndOrderLabels(self):
        """Return the labels that are visible, their order, and those shown as images."""
        item = self._emSet.getFirstItem()
        ours = [name for name, _ in SCORE_ATTRIBUTES.values() if item is not None and item.hasAttribute(name)]
        labels = " ".join([*_FIRST, *ours, *_LAST])
        return labels, labels, _RENDERED


class CryolikeParticlesTable(Viewer):
    """Opens particles that carry likelihood scores in the metadata viewer."""

    _name = "table with likelihood scores"
    _targets = [SetOfParticles]
    _environments = [DESKTOP_TKINTER]

    @classmethod
    def can_handle_this_instance(cls, instance):
        """Whether the particles have columns of ours."""
        return has_scores(instance)

    def _visualize(self, obj, **kwargs):
        return [table_of(obj, self.protocol, self.getProject())]


def table_of(particles, protocol, project):
    """Return the view of a set of particles as a table."""
    return CryolikeMDView(particles, protocol, project.port)


def has_scores(particles):
    """Whether the particles of a set have likelihood scores."""
    if not isinstance(particles, SetOfParticles) or particles.getSize() == 0:
        return False
    item = particles.getFirstItem()
    ours = {name for name, _ in SCORE_ATTRIBUTES.values() if name.startswith(ATTRIBUTE_PREFIX)}
    return item is not None and any(item.hasAttribute(name) for name in ours)
