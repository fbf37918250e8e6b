"""GPUs that the steps of a run share, each used by one step at a time.

Scipion hands out GPUs to the steps that a run begins with, not to those that it inserts later for particles that come;
therefore these runs keep the list themselves.
"""

import contextlib
import os
import queue

from pyworkflow.protocol.constants import VOID_GPU

MASK = "CUDA_VISIBLE_DEVICES"


class GpuPool:
    """A list of GPUs from which every step borrows one.

    Parameters
    ----------
    gpus : list
        Numbers or names of GPUs, as CUDA_VISIBLE_DEVICES takes them. One that is listed twice serves two steps at a time.
    """

    def __init__(self, gpus):
        self._free = queue.Queue()
        self.size = 0
        for gpu in gpus:
            self._free.put(str(gpu))
            self.size += 1

    @contextlib.contextmanager
    def one(self):
        """Borrow a GPU, waiting for one if all are in use; None where there are none in the pool."""
        if self.size == 0:
            yield None
            return
        gpu = self._free.get()
        try:
            yield gpu
        finally:
            self._free.put(gpu)


def pool_of(protocol):
    """Return the GPUs of a protocol's run, an empty pool where it uses none or the queue gives each step its own.

    A run that is a job of a queue as a whole uses what the queue gave it, whatever numbers the form has: the GPUs in the
    job's own CUDA_VISIBLE_DEVICES, at most as many as the form lists.
    """
    if not protocol.usesGpu() or protocol.useQueueForSteps():
        return GpuPool([])
    gpus = [gpu for gpu in protocol.getGpuList() if gpu != VOID_GPU]
    given = [name.strip() for name in os.environ.get(MASK, "").split(",") if name.strip()]
    if protocol.useQueueForProtocol() and given:
        gpus = given[: len(gpus)]
    return GpuPool(gpus)
