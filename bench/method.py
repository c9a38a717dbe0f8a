"""The contract of a compression method: all that a plug-in imports from the harness, together with `bench.blocks`.

A method transforms a model in place. It never times, counts, seeds, saves or scores itself; what else it may use
(random numbers, calibration text, the size target, the step budget) comes from the `Context`.
Nothing here imports torch, so listing methods stays cheap.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.errors import BudgetExceeded, Cancelled

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Track = Literal["pruning", "decomposition", "peft", "control"]
Basis = Literal["params", "block_params", "group_ratio", "macs"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

TARGET_TOLERANCE = 0.005
"""The largest difference allowed between the removed fraction and a target, both fractions of the target's basis."""

IGNORED = -100
"""The label of a token without a loss."""


class Traits(BaseModel):
    """What the harness and the reader must know about a method before it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="the method's name as its authors write it")
    track: Track = Field(description="the board it is compared on")
    needs: frozenset[Literal["calibration", "gradients", "row_gradients", "training"]] = Field(
        frozenset(), description="text, and gradients of batches of it or, which takes less memory, of one row"
    )
    changes: frozenset[Literal["shapes", "values", "adds_parameters"]] = frozenset()
    deterministic: bool = Field(True, description="the same weights for every seed")
    paper: str = Field("", description="citation: authors, title, venue, arXiv number")
    licence: str = "Apache-2.0"


class MethodConfig(BaseModel):
    """Base of every method's `Config`: frozen, no unknown keys; each field has a default and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Target(BaseModel):
    """How much to remove: a fraction in (0, 1) of what `basis` names.

    `params` all parameters, `block_params` those of the decoder blocks, `macs` multiply-accumulates of 64 tokens,
    `group_ratio` the method's own per-module ratio, taken as it is (the published settings are given that way).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Basis = "params"
    value: float = Field(gt=0, lt=1)

    def __str__(self) -> str:
        return f"{self.basis}={self.value:g}"


@dataclass(frozen=True)
class Example:
    """One training example: `input_ids` and `labels` (same length; `IGNORED` where there is no loss)."""

    input_ids: list[int]
    labels: list[int]


@dataclass
class Meter:
    """What a method has used; stored in the record as the cost of compressing."""

    calibration_tokens: int = 0
    optimiser_steps: int = 0
    trainable_parameters: int = 0
    earlier_seconds: float = 0.0
    """Training time of interrupted runs that this one continued."""


@dataclass
class Context:
    """All that a method may use, except the model.

    `target` is None where the method's own config says how much to remove.
    `sample` and `examples_source` are the harness's text sources, reached through `calibration()` and `examples()`.
    `workspace` is a folder where long training keeps what it needs to continue after a crash (None: nothing).
    """

    seed: int
    device: torch.device
    target: Target | None
    tokenizer: PreTrainedTokenizerBase | None
    sample: Callable[[int, int, int], torch.Tensor]
    examples_source: Callable[[int, str], Sequence[Example]]
    max_steps: int | None = None
    workspace: Path | None = None
    on_progress: Progress = lambda what, done, total: None
    is_cancelled: Callable[[], bool] = lambda: False
    meter: Meter = field(default_factory=Meter)

    def derived_seed(self, name: str) -> int:
        """A 63-bit seed that depends on the run's seed and on `name` alone."""
        digest = hashlib.sha256(f"{self.seed}|{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator of its own for each `name`: the same numbers whatever else was drawn before."""
        import torch

        return torch.Generator().manual_seed(self.derived_seed(name))

    def calibration(self, n: int, seq_len: int, draw: int = 0) -> torch.Tensor:
        """Calibration token ids, int64 [n, seq_len] on `device`; another `draw` gives other windows.

        Where the caller of `bench.compress` gave token ids, all of those are returned, whatever `n` and `seq_len` are.
        """
        ids = self.sample(n, seq_len, draw)
        self.meter.calibration_tokens += ids.numel()
        return ids.to(self.device)

    def examples(self, max_length: int, *, prefix: str = "") -> Sequence[Example]:
        """Training examples of at most `max_length` tokens: instructions, other text, or the caller's own token ids.

        The text `prefix` comes before each, on top of `max_length` and without a loss, but not before token ids.
        """
        return self.examples_source(max_length, prefix)

    def count_step(self) -> None:
        """Call this before every optimiser step.

        Raises:
            BudgetExceeded: the step budget is spent.
            Cancelled: the run was interrupted.
        """
        self.check_cancelled()
        if self.max_steps is not None and self.meter.optimiser_steps >= self.max_steps:
            raise BudgetExceeded(f"the method asked for more than its {self.max_steps} optimiser steps")
        self.meter.optimiser_steps += 1

    def progress(self, what: str, done: int, total: int) -> None:
        """Show the user how far a long stage is; an interruption takes effect here too."""
        self.check_cancelled()
        self.on_progress(what, done, total)

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise Cancelled("interrupted")


class Method(ABC):
    """A compression method.

    A plug-in is a subclass with the class attributes below, in a file or folder that the registry finds.
    Raise `version` whenever a number that the method gives may change; it is part of every key.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    traits: ClassVar[Traits]
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        """Transform `model` (evaluation mode, gradients off) in place or return another; never save or measure it."""

    def recover(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        """Training that is part of the method itself. Recovery recipes that suit any method are in `bench.blocks`."""
        return model

    def finalize(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        """Merge adapters and drop hooks; the model that is returned is saved."""
        return model


class Preset(BaseModel):
    """A named setting of a method, from its `presets.yaml`: `paper` the published one, `quick` for small machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    config: dict[str, object] = {}
    recovery: dict[str, object] | None = None

    @model_validator(mode="after")
    def _recovery_has_a_name(self) -> Preset:
        if self.recovery is not None and not isinstance(self.recovery.get("name"), str):
            raise ValueError("recovery: needs a 'name'")
        return self
