"""The nodes of this plugin: generate templates, convert particles, likelihood."""

from .protocol_convert_particles import ProtCryolikeConvertParticles
from .protocol_generate_templates import ProtCryolikeGenerateTemplates
from .protocol_likelihood import ProtCryolikeLikelihood

__all__ = ["ProtCryolikeConvertParticles", "ProtCryolikeGenerateTemplates", "ProtCryolikeLikelihood"]
