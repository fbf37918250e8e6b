"""Windows that show results."""

from .viewer_ensemble import CryolikeEnsembleViewer
from .viewer_likelihood import CryolikeLikelihoodViewer
from .viewer_particles import CryolikeConvertedParticlesViewer

# Scipion offers viewers in the order of these names, and its own for any set is AMDViewer.
from .viewer_table import CryolikeParticlesTable as ACryolikeParticlesTable
from .viewer_templates import CryolikeTemplatesViewer

__all__ = [
    "ACryolikeParticlesTable",
    "CryolikeConvertedParticlesViewer",
    "CryolikeEnsembleViewer",
    "CryolikeLikelihoodViewer",
    "CryolikeTemplatesViewer",
]
