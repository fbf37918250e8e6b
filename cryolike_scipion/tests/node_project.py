"""A project with particles of two structures, and the runs of the nodes that several files of tests look at."""

import json
import os

import numpy as np

from cryolike_scipion.convert.poses import euler_matrices, poses_from_transforms
from cryolike_scipion.parameters import get
from cryolike_scipion.protocols import ProtCryolikeLikelihood
from cryolike_scipion.protocols.protocol_likelihood import FROM_STRUCTURES

from .scipion_project import ScipionProject
from .scipion_sets import star_subset
from .two_states import PIXEL, two_states

ROWS = [3, 1, 2, *range(5, 22)]
COARSE = {"angularStep": 20.0, "maxShift": 26.2, "levels": 0, "resolution": 40.0, "binThreads": 1}
FINE = {"angularStep": 15.0, "maxShift": 26.2, "levels": 1, "binThreads": 1}


class NodeProject(ScipionProject):
    """A project with particles of two structures."""

    @property
    def data(self):
        """The folder of :func:`~cryolike_scipion.tests.two_states.two_states`."""
        return two_states()

    def particles(self, source="particles.star", rows=ROWS):
        """Import some particles through RELION's plugin; those of ``truth.star`` have poses."""
        star = star_subset(self.data / source, f"{len(os.listdir('.'))} input/{source}", rows, self.data / "particles.mrcs")
        return self.import_star(star, PIXEL)

    def volumes(self, pattern="state_*.mrc"):
        """Import both maps as a set, or one of them."""
        return self.import_volumes(str(self.data / pattern), PIXEL)

    def likelihood(self, particles, structures, sampling=COARSE, **values):
        """Run the likelihood node on structures as they are."""
        return self.finish(
            ProtCryolikeLikelihood,
            structuresFrom=FROM_STRUCTURES,
            inputParticles=particles,
            inputStructures=structures,
            **dict(sampling, **values),
        )


def search_number(name):
    """Return the place of a search in the form's list."""
    return get("likelihood", "search").choices.index(name)


def engine_star(protocol):
    """Return the STAR file that the engine wrote for a likelihood node."""
    return protocol._getExtraPath("result", "particles.star")


def stored_poses(table):
    """Return RELION's poses of the transforms in a set's table: [M, 5]."""
    matrices = [json.loads(text) for text in table["_transform._matrix"]]
    return np.stack(poses_from_transforms(matrices, PIXEL), axis=1)


def assert_same_poses(one, other):
    """Angles as rotations, and origins, to 1e-3 degree or radian and 1e-3 Å."""
    assert np.allclose(euler_matrices(*one[:, :3].T), euler_matrices(*other[:, :3].T), atol=2e-5)
    assert np.allclose(one[:, 3:], other[:, 3:], atol=1e-3)
