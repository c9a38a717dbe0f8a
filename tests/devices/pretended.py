"""A device that is not there: its tensors lie on the CPU, but must not be mixed with those of the CPU, as on a GPU.

Within `pretended()` the device goes by the name `DEVICE`. What an operation takes must lie on one device; as in CUDA
the exceptions are copies, single numbers, and what a tensor is indexed with. Random generators of the CPU do not fill
its tensors. Arithmetic is the CPU's own, so results can be compared bit for bit where the kernels are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
"""Of torch's own names the one whose backward passes need no device thread. Nothing is left on the true one here."""

COPIES = {"aten::copy_", "aten::_to_copy"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Mixed(RuntimeError):
    """Tensors of two devices met."""


class OnDevice(torch.Tensor):
    """A tensor of the device; `held` is what it is made of."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.tolist:  # torch refuses it of any subclass
            return args[0].cpu().tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """As torch wants it of tensors around tensors, whose size cannot be set in place."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, torch.Tensor], *_: Any) -> OnDevice:
        return OnDevice(inner["held"])

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held})"


class _Everything(TorchDispatchMode):
    """Sees what is made on the device by its name, too."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers of Python, which torch would drop for the true device of that name."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor, torch.asarray):
            device = kwargs.pop("device", None)
            made = function(*args, **kwargs)
            return made if device is None else made.to(device)
        if function is torch.Tensor.__getitem__ and isinstance(args[1], tuple):
            args = (args[0], tuple(torch.tensor(key) if isinstance(key, list) else key for key in args[1]))
        return function(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[None]:
    """Within the block the device is there; inference mode, which knows no tensors around tensors, is no-grad there."""
    with _Everything(), _Literals(), patch("torch.inference_mode", torch.no_grad):
        yield


def strays(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of those that do not lie on the device."""
    return [name for name, tensor in tensors.items() if not isinstance(tensor.data, OnDevice)]


def _run(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    name, wanted = operation._schema.name, kwargs.get("device")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    mine = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    here = bool(mine) if wanted is None else torch.device(wanted).type == DEVICE
    if here and any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
        raise Mixed(f"{name}: a random generator of the CPU for a tensor of the device")
    if any(t.device.type == DEVICE and not isinstance(t, OnDevice) for t in tensors):
        raise Mixed(f"{name}: a tensor without numbers")
    if mine and name not in COPIES:
        _check(name, args, tensors)
    given = tree_map(held, (args, {**kwargs, **({} if wanted is None else {"device": torch.device("cpu")})}))
    out = operation(*given[0], **given[1])
    if not here:
        return out
    known = {id(tensor.held): tensor for tensor in mine}

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnDevice(leaf)

    return tree_map(put, out)


def _check(name: str, args: Sequence[Any], tensors: Sequence[torch.Tensor]) -> None:
    if name in INDEXED:
        tensors = [args[0], *args[2:3]] if isinstance(args[0], OnDevice) else [args[0], *tree_leaves(args[1])]
    plain = [t for t in tensors if isinstance(t, torch.Tensor) and not isinstance(t, OnDevice) and t.dim()]
    if plain:
        raise Mixed(f"{name}: a tensor of the CPU, {list(plain[0].shape)}, meets one of the device")


def held(leaf: Any) -> Any:
    """What a tensor of the device is made of; anything else as it is."""
    return leaf.held if isinstance(leaf, OnDevice) else leaf
