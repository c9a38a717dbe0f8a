"""Masks on attention heads and MLP channels, and the gradient of the loss by them.

A mask is a factor, 1 by default, on what a unit hands to the projection that ends its module: on the context vector c
of a query head before the attention's output projection, on the activation c of an MLP channel before the down
projection. Mask 0 is the model without that unit, and dL/dmask = sum over tokens of <dL/dc, c>.

Source: head importance by masks (Michel, Levy, Neubig, arXiv 1905.10650, §4.1), as Pruning-Adapter uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.gradients import recomputed
from bench.blocks.groups import blocks_of, shape_of
from bench.blocks.train import causal_loss, collate, targets_in
from bench.errors import MethodError
from bench.method import Example, Progress


@dataclass(frozen=True)
class UnitMasks:
    """One number per unit: layer to float32 vector, [query heads] for `heads`, [channels] for `channels`.

    Layers that are not named have none.
    """

    heads: Mapping[int, torch.Tensor]
    channels: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def tensors(self) -> list[torch.Tensor]:
        """Those of the heads, then those of the channels."""
        return [*self.heads.values(), *self.channels.values()]


@contextmanager
def masked(model: PreTrainedModel, masks: UnitMasks) -> Iterator[None]:
    """Within the block, every unit's output in `model` is multiplied by its mask."""
    blocks = blocks_of(model)
    pairs = [(blocks[layer].o, mask) for layer, mask in masks.heads.items()]
    pairs += [(blocks[layer].down, mask) for layer, mask in masks.channels.items()]
    hooks = [linear.register_forward_pre_hook(_multiply(mask)) for linear, mask in pairs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def mask_importance(
    model: PreTrainedModel,
    examples: Sequence[Example],
    *,
    channels: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> UnitMasks:
    """The sum over `examples` of |dL/dmask| for every query head and, where asked for, every MLP channel.

    L is the mean loss per target token of one example, taken in the mode that `model` is in (evaluation: no dropout).
    The parameters get no gradients.

    Raises:
        MethodError: a gradient is not finite.
    """
    shape = shape_of(model)

    def vectors(sizes: Sequence[int], value: float) -> dict[int, torch.Tensor]:
        return {layer: torch.full((size,), value, device=model.device) for layer, size in enumerate(sizes)}

    def per_unit(value: float) -> UnitMasks:
        mlp = [block.channels for block in shape.blocks] if channels else []
        return UnitMasks(vectors([block.heads for block in shape.blocks], value), vectors(mlp, value))

    masks, total = per_unit(1.0), per_unit(0.0)
    for mask in masks.tensors():
        mask.requires_grad_()
    with masked(model, masks), recomputed(model), torch.enable_grad():
        for done, example in enumerate(examples, start=1):
            loss = causal_loss(model, *collate([example], model.device)) / max(1, targets_in([example]))
            for sum_, gradient in zip(total.tensors(), torch.autograd.grad(loss, masks.tensors()), strict=True):
                sum_ += gradient.abs()
            progress("importance", done, len(examples))
    if not all(bool(torch.isfinite(vector).all()) for vector in total.tensors()):
        raise MethodError("the importance of heads is not finite; is the model's loss on the examples finite?")
    return total


def _multiply(mask: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor]], torch.Tensor]:
    """A hook that scales the input [..., units·width] of a linear layer unit by unit."""

    def hook(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (hidden,) = inputs
        units = hidden.unflatten(-1, (len(mask), -1))
        return (units * mask.to(hidden).unsqueeze(-1)).flatten(-2)

    return hook
