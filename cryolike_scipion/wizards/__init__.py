"""Windows that help to choose a parameter while its effect is seen."""

from .wizard_mask import CryolikeMaskWizard
from .wizard_resolution import CryolikeResolutionWizard
from .wizard_shift import CryolikeShiftWizard
from .wizard_symmetry import CryolikeSymmetryWizard
from .wizard_threshold import CryolikeThresholdWizard

__all__ = [
    "CryolikeMaskWizard",
    "CryolikeResolutionWizard",
    "CryolikeShiftWizard",
    "CryolikeSymmetryWizard",
    "CryolikeThresholdWizard",
]
