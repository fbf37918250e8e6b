"""The nodes of this plugin: import particles, generate templates, convert particles, likelihood, ensemble weights,
select by score.
"""

from .protocol_convert_particles import ProtCryolikeConvertParticles
from .protocol_ensemble import ProtCryolikeEnsemble
from .protocol_generate_templates import ProtCryolikeGenerateTemplates
from .protocol_import_particles import ProtCryolikeImportParticles
from .protocol_likelihood import ProtCryolikeLikelihood
from .protocol_select import ProtCryolikeSelect

__all__ = [
    "ProtCryolikeConvertParticles",
    "ProtCryolikeEnsemble",
    "ProtCryolikeGenerateTemplates",
    "ProtCryolikeImportParticles",
    "ProtCryolikeLikelihood",
    "ProtCryolikeSelect",
]
