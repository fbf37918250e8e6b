"""The engine: likelihoods and poses of particle images under known structures.  Knows nothing of Scipion.

:func:`run` has the verbs and the parameters of the command line (:mod:`cryolike_scipion.parameters`):

    >>> from cryolike_scipion import engine
    >>> engine.run("simulate", count=100, out="simulated")
    >>> engine.run("likelihood", particles="simulated/particles.star",
    ...            structures=["simulated/state_1.mrc", "simulated/state_2.mrc"], out="scores")

Bad input raises :class:`cryolike_scipion.engine.errors.InputError`, a bad parameter
:class:`cryolike_scipion.parameters.ParameterError`.  Importing this package does not import torch.
"""

import importlib
import os
from typing import Any, Optional

from ..parameters import complete
from .progress import Progress

__all__ = ["run"]

# Read by OpenMP when torch is imported: threads that wait must not keep busy the cores that other steps need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by MKL when torch first uses it: its own memory manager may wait for ever in a forked process.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


def run(verb: str, progress: Optional[Progress] = None, **given: Any) -> None:
    """Run a verb with the `given` parameters and the defaults of the others.

    Raises
    ------
    ParameterError
        For an unknown verb or parameter, or a value of the wrong type.
    InputError
        For input that cannot be used.
    """
    parameters = complete(verb, given)
    if "device" in parameters:
        from .compute import choose_device

        parameters["device"] = choose_device(parameters["device"])
    if parameters.get("threads") is not None:
        from .compute import use_threads

        use_threads(parameters["threads"])
    module = importlib.import_module(f"{__name__}.{verb}_run")
    module.run(parameters, Progress() if progress is None else progress)
