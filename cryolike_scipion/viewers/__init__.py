"""Windows that show results."""

from .viewer_likelihood import CryolikeLikelihoodViewer
from .viewer_templates import CryolikeTemplatesViewer

__all__ = ["CryolikeLikelihoodViewer", "CryolikeTemplatesViewer"]
