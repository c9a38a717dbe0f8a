"""One model on several devices: each decoder block lies whole on one of them, all else on the first.

Hidden states move from block to block by accelerate's hooks. Where the devices are full, blocks stay in the CPU's
memory, and each is copied to the first device for its passes (offload), which is slow, but fits. That copying is ours:
accelerate leaves no weights in an offloaded block between its passes, and methods read and change them there.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.settings import WORKING
from bench.family import Family
from bench.model.layers import embedding_of, family_of, final_norm_of, layers_of
from bench.shape import Shape

CPU = "cpu"


@dataclass(frozen=True)
class Placement:
    """The device of the embedding, the norm and the head, and those of the blocks, where they are not all on it.

    `cpu` next to another is offload.
    """

    first: str
    blocks: tuple[str, ...] = ()

    def device_of(self, name: str, family: Family) -> str:
        """Where the weight `name` lies."""
        rest = name.removeprefix(f"{family.layers}.")
        return self.first if not self.blocks or rest == name else self.blocks[int(rest.partition(".")[0])]


def place(shape: Shape, width: int, room: Mapping[str, int]) -> Placement | None:
    """Where the blocks of a model go whose numbers take `width` bytes; None where one device takes them all.

    `room` are bytes by device, the first first. All are filled to the same share as far as whole blocks allow; what
    they do not hold stays in the CPU's memory, and then the first keeps room for a block that passes through.
    """
    sizes = [width * replace(shape, blocks=(block,), factors=()).block_params() for block in shape.blocks]
    outer = width * (shape.params() - shape.block_params()) + width * sum(f.params(shape.size) for f in shape.factors)
    first = next(iter(room), CPU)
    if first == CPU or outer + sum(sizes) <= room[first]:
        return None
    for percent in range(1, 101):
        found = _filled(sizes, {d: percent * b // 100 - (outer if d == first else 0) for d, b in room.items()})
        if CPU not in found:
            return Placement(first, found)
    return Placement(first, _filled(sizes, {d: b - (outer + max(sizes) if d == first else 0) for d, b in room.items()}))


def _filled(sizes: list[int], room: Mapping[str, int]) -> tuple[str, ...]:
    """The devices of the blocks, one device after another."""
    devices, left, found = list(room), dict(room), []
    for size in sizes:
        while devices and left[devices[0]] < size:
            devices.pop(0)
        found.append(devices[0] if devices else CPU)
        if devices:
            left[devices[0]] -= size
    return tuple(found)


def room_of(device: str) -> dict[str, int]:
    """Bytes that a model may take on each device that `device` stands for: `cuda` for all GPUs, none for the CPU."""
    if device != "cuda":
        return {}
    free = {f"cuda:{i}": torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
    return {name: max(0, left - WORKING) for name, left in free.items()}


def connect(model: PreTrainedModel) -> None:
    """Let `model` run where its blocks lie; nothing is done to one that lies on one device."""
    first = embedding_of(model).weight.device
    places = [_device_of(layer) for layer in layers_of(model)]
    if set(places) == {first}:
        return
    model.get_submodule(family_of(model).rotary).to(first)
    for layer, there in zip(layers_of(model), places, strict=True):
        if there.type == CPU and first.type != CPU:
            layer.forward = partial(_passing, layer, layer.forward, first)
            there = first
        add_hook_to_module(layer, AlignDevicesHook(there))
        _own_factors(layer, there)
    add_hook_to_module(final_norm_of(model), AlignDevicesHook(first))


def spread_of(model: PreTrainedModel) -> str | None:
    """How many blocks lie where, in words; None for a model that lies on one device."""
    places = Counter(str(_device_of(layer)) for layer in layers_of(model))
    if set(places) == {str(embedding_of(model).weight.device)}:
        return None
    parts = [f"{n} on {device}" if device != CPU else f"{n} in the CPU's memory" for device, n in places.items()]
    return f"its blocks are spread: {', '.join(parts)}"


def _device_of(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _passing(layer: nn.Module, forward: Callable[..., Any], device: torch.device, *args: Any, **kwargs: Any) -> Any:
    """A block's forward pass with copies of its weights on `device`; gradients go back through them."""
    at_home = [(own, dict(own)) for module in layer.modules() for own in (module._parameters, module._buffers)]
    try:
        for own, weights in at_home:
            own.update({name: weight.to(device) for name, weight in weights.items() if weight is not None})
        return forward(*args, **kwargs)
    finally:
        for own, weights in at_home:
            own.update(weights)


def _own_factors(layer: nn.Module, device: torch.device) -> None:
    """Factors that blocks on other devices share have a copy on each."""
    for module in layer.modules():
        factors = vars(module).get("factors")
        if isinstance(factors, nn.Module) and _device_of(factors) != device:
            vars(module)["factors"] = copy.deepcopy(factors).to(device)
