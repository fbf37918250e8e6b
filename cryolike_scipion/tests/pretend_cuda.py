"""Tensors that say they are on a GPU and refuse what a GPU's tensors refuse, for machines without one.

Their data are in ordinary memory. Operations on them and on CPU tensors together, conversion to numpy without ``.cpu()`` and
indexing of CPU tensors by them raise an error, as CUDA does. What a mode sees are calls in its own thread.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda:0")
_T = torch.Tensor
_FREE = {_T.copy_, _T.__repr__, _T.to, _T.cpu, _T.type, torch.as_tensor, torch.tensor}  # may name both devices
_INDEXING = {_T.__getitem__, _T.__setitem__, _T.index_put_, torch.index_put_}
_FORBIDDEN = {_T.numpy, _T.__array__}


def witness(func) -> None:
    """Called with every function that such a tensor goes through."""


class PretendTensor(torch.Tensor):
    """See above."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class PretendCuda(TorchFunctionMode):
    """Within it ``device="cuda:0"`` makes such tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _call(func, args, kwargs):
    tensors = list(_tensors((args, kwargs)))
    pretending = [t for t in tensors if isinstance(t, PretendTensor)]
    with torch._C.DisableTorchFunction():
        if func == _T.device.__get__:
            return DEVICE if pretending else func(*args)
        if func == _T.is_cuda.__get__:
            return bool(pretending)
        if pretending and func in _FORBIDDEN:
            raise TypeError("can't convert a CUDA tensor to numpy; use .cpu() first")
        if func is _T.cpu:
            return args[0].as_subclass(torch.Tensor).clone()
        if pretending:
            witness(func)
        _check(func, args, tensors, pretending)
        device = _named_device(func, args, kwargs)
        if device is not None:
            args, kwargs = _without_device(args, kwargs)
            if func is _T.to and len(args) == 1 and not kwargs:
                made = args[0].clone()
            else:
                made = func(*args, **kwargs)
            return made.as_subclass(PretendTensor if device.type == "cuda" else torch.Tensor)
        made = func(*args, **kwargs)
        return _wrapped(made) if pretending else made


def _check(func, args, tensors, pretending) -> None:
    if not pretending or func in _FREE:
        return
    others = [t for t in tensors if not isinstance(t, PretendTensor) and t.dim() > 0]
    if func in _INDEXING:
        if not isinstance(args[0], PretendTensor):
            if func is _T.__setitem__ and not any(isinstance(t, PretendTensor) for t in _tensors(args[1])):
                return  # a slice of a CPU tensor takes a copy of a value on the GPU
            raise RuntimeError("indices should be on the CPU, as the indexed tensor is")
        value = [t for t in _tensors(args[2:]) if not isinstance(t, PretendTensor) and t.dim() > 0]
        others = value if any(True for _ in _tensors(args[1])) else []
    if others:
        raise RuntimeError(f"{getattr(func, '__name__', func)}: expected all tensors to be on the same device")


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _is_device(value) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"))


def _named_device(func, args, kwargs) -> torch.device | None:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    if func is _T.to:
        for value in args[1:]:
            if _is_device(value):
                return torch.device(value)
            if isinstance(value, torch.Tensor):
                return DEVICE if isinstance(value, PretendTensor) else torch.device("cpu")
    return None


def _without_device(args, kwargs):
    return tuple(a for a in args if not _is_device(a)), {k: v for k, v in kwargs.items() if k != "device"}


def _wrapped(value):
    if isinstance(value, torch.Tensor):
        return value.as_subclass(PretendTensor)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)([_wrapped(v) for v in value])
    if isinstance(value, (list, tuple)):
        return type(value)(_wrapped(v) for v in value)
    return value
