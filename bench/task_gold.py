"""The kind of task that scores gold answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from bench.errors import UsageError
from bench.protocol import BOS, Protocol
from bench.task_accuracy import CPU_TOKENS, GPU_TOKENS
from bench.task_kind import DataRef, TaskSpec


class GoldTask(TaskSpec):
    """Gold answers scored after contexts that were rendered elsewhere, a file for each protocol.

    A file has the columns `item`, `context`, `choices`, `gold` (the number of the right one) and perhaps `part`.
    `+shuffled` gives each answer the context of another item of its part.
    """

    module = "bench.measure.bits"
    engine = f"bits/1 lm-eval/0.4 packed/cpu{CPU_TOKENS}/gpu{GPU_TOKENS}"
    seconds = 7.0
    has_limit = True
    flags = (*BOS, "shuffled")
    imports = 120_000_000  # lm-eval

    kind: Literal["gold"]
    texts: dict[str, DataRef] = Field(min_length=1, description="protocol without flags -> file of the pack")

    def data(self, protocol: str | None = None) -> list[str]:
        return [self.texts[Protocol.parse(protocol).asked]] if protocol else list(self.texts.values())

    def protocol(self, given: str | None) -> str:
        protocol = Protocol.parse(given or next(iter(self.texts)), self.flags, f"task {self.name}")
        if protocol.asked not in self.texts:
            raise UsageError(f"task {self.name}: protocol '{given}' is not {' or '.join(self.texts)}")
        return str(protocol)

    def usual(self) -> Sequence[str]:
        return list(self.texts)
