"""What an engine must offer for its generation to be measured: a loaded checkpoint, driven one forward pass at a time.

A backend is a module of this package with a function `load` and an entry in `bench.task.BACKENDS`. It runs in a process
of its own, one checkpoint in each, so it may change threads and environment as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PROMPT_SEED = 20_240_229

Ids = list[list[int]]
"""Token ids, one list for each sequence of the batch."""


@dataclass(frozen=True)
class Workload:
    """Sequences at once, prompt tokens and new tokens of each."""

    batch: int
    prompt: int
    new: int

    def prompts(self, vocab: int) -> Ids:
        """Random token ids, [batch, prompt]: the same for every model of one vocabulary."""
        ids: Ids = np.random.default_rng(PROMPT_SEED).integers(vocab, size=(self.batch, self.prompt)).tolist()
        return ids


class MemoryMeter(Protocol):
    """The memory of the device that the backend uses; None in place of bytes where it cannot be measured."""

    def reset(self) -> int | None:
        """Forget the highest use so far; the bytes in use now."""
        ...

    def peak(self) -> int | None:
        """The highest use since the last reset, in bytes."""
        ...


class Backend(Protocol):
    """A checkpoint that generates greedily; an end-of-sequence token never stops it.

    A generation is `clear`, `prefill` and then `decode` until each sequence has its `new` tokens. What a pass returns
    are its tokens in whatever form the engine has them, on the device or not: only `ids` reads them.

    Attributes:
        vocab: size of the vocabulary.
        weight_bytes: parameters and buffers as they lie in memory.
        spread: how the weights lie on several devices, in words; None where they lie on one.
        passes: forward passes of the model so far, counted where they run and not where they are asked for.
        cache_reserved: the cache's memory is taken when the checkpoint is loaded, and not as the cache grows.
        meter: the memory of this process.
    """

    vocab: int
    weight_bytes: int
    spread: str | None
    passes: int
    cache_reserved: bool
    meter: MemoryMeter

    def clear(self) -> None:
        """Drop the previous generation and its cache; no prefix of it may be reused."""
        ...

    def prefill(self, prompt: Ids, new: int) -> Any:
        """Read the prompts in one pass and choose the first of the `new` tokens of each sequence."""
        ...

    def decode(self) -> Any:
        """One pass over the newest token of each sequence, behind the cache of all before it: one more of each."""
        ...

    def cached(self) -> list[int]:
        """How many tokens the cache holds, for each sequence in it; called before each `decode`."""
        ...

    def cache_bytes(self) -> int:
        """Bytes of the keys and values of this generation; called after its last pass."""
        ...

    def ids(self, passes: Sequence[Any]) -> Ids:
        """The new ids of each sequence, read from what the passes of one generation returned.

        Reading them waits for the device, whatever `sync` does.
        """
        ...

    def sync(self) -> None:
        """Wait until the device has done all that it was given."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """What a backend loads, how, and the largest workload that it will be given."""

    folder: Path
    dtype: str
    device: str
    most: Workload

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Checkpoint:
        return cls(Path(content["folder"]), content["dtype"], content["device"], Workload(**content["most"]))


class Engine(Protocol):
    """A module of this package."""

    def load(self, checkpoint: Checkpoint) -> Backend: ...


def engine(name: str) -> Engine:
    """The module of a backend, one of `bench.task.BACKENDS`; importing it imports all that it needs."""
    module: Engine = import_module(f"bench.measure.generation.{name}")
    return module
