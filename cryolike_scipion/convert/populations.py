"""Populations of structures, as the engine's verb ``ensemble`` wrote them, as Scipion volumes."""

import json
import os

import mrcfile
from pwem.objects import Volume
from pyworkflow.object import Float

# Column of ensemble.json to attribute of a volume.
_ATTRIBUTES = {
    "mean": "_cryolike_population",
    "low": "_cryolike_populationLow",
    "high": "_cryolike_populationHigh",
    "deviation": "_cryolike_populationError",
    "most_likely": "_cryolike_populationMostLikely",
    "effective_particles": "_cryolike_effectiveParticles",
    "log_evidence_per_particle": "_cryolike_logEvidencePerParticle",
}


def read_ensemble(path):
    """Return the content of ``ensemble.json``."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def populated_volumes(numbers, pattern):
    """Yield a volume for every structure that has a density, with its population and interval as attributes.

    Parameters
    ----------
    numbers : dict
        From :func:`read_ensemble`.
    pattern : str
        File of a structure's density, with its number in place of ``%03d``.
    """
    for structure in numbers["structures"]:
        density = pattern % structure["number"]
        if not os.path.exists(density):  # 'none of these' has none
            continue
        volume = Volume()
        volume.setLocation(density)
        volume.setObjLabel(structure["label"])
        with mrcfile.open(density, header_only=True, permissive=True) as file:
            volume.setSamplingRate(float(file.voxel_size.x))
        for name, attribute in _ATTRIBUTES.items():
            setattr(volume, attribute, Float(structure[name]))
        yield volume
