"""What a method changes of the process around it does not reach what is measured there afterwards."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from bench.errors import MethodError
from bench.run.compress import _check_no_global_hooks, seeded


def state() -> list[object]:
    numpy_state: Any = np.random.get_state()
    return [
        random.getstate(),
        numpy_state[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    ]


def test_random_states_threads_and_defaults_are_as_they_were() -> None:
    before = state()
    with pytest.raises(ValueError, match="in the middle"), seeded(3):  # noqa: PT012
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        assert state() != before
        raise ValueError("in the middle")
    assert state() == before


def test_a_hook_on_every_module_is_refused_and_removed() -> None:
    _check_no_global_hooks()
    register_module_forward_hook(lambda module, given, out: out)
    with pytest.raises(MethodError, match="left hooks on all modules"):
        _check_no_global_hooks()
    _check_no_global_hooks()
