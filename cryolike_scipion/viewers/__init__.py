"""Windows that show results."""

from .viewer_likelihood import CryolikeLikelihoodViewer
from .viewer_particles import CryolikeConvertedParticlesViewer
from .viewer_table import CryolikeParticlesTable
from .viewer_templates import CryolikeTemplatesViewer

__all__ = [
    "CryolikeConvertedParticlesViewer",
    "CryolikeLikelihoodViewer",
    "CryolikeParticlesTable",
    "CryolikeTemplatesViewer",
]
