"""Trained parameters in float32, whatever the type of the model.

An update far smaller than a bfloat16 weight would be rounded away. So AdamW gets a float32 copy of each narrower
parameter, which gathers its gradients in float32; the model gets the copy's value after each step (master weights,
Micikevicius et al., arXiv 1710.03740, §3.1). Parameters that are float32 already, as peft's adapters are, stay as they
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MasterWeights:
    """The float32 parameters that stand for those of a model, in an optimiser and where they are saved."""

    def __init__(self) -> None:
        self._copies: dict[nn.Parameter, nn.Parameter] = {}

    def of(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """What is trained for each of `parameters`: itself, or its float32 copy where it is narrower."""
        return [self._of(parameter) for parameter in parameters]

    def _of(self, parameter: nn.Parameter) -> nn.Parameter:
        if torch.finfo(parameter.dtype).bits >= 32:
            return parameter
        if parameter not in self._copies:
            self._copies[parameter] = nn.Parameter(parameter.detach().float())
        return self._copies[parameter]

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Within the block, each gradient of the model goes to the copy as soon as it is whole, and is freed."""

        def hand_over(parameter: nn.Parameter) -> None:
            master, gradient = self._copies[parameter], parameter.grad
            assert gradient is not None
            parameter.grad = None
            master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)

        hooks = [parameter.register_post_accumulate_grad_hook(hand_over) for parameter in self._copies]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def write(self) -> None:
        """Give the model the values of the copies."""
        for parameter, master in self._copies.items():
            parameter.data.copy_(master.data)
