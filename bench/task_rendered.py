"""What tasks share whose prompts were rendered elsewhere; the kinds are gold answers and questions with choices."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from bench.errors import UsageError
from bench.protocol import Protocol
from bench.task_kind import DataRef, TaskSpec


class RenderedTexts(TaskSpec):
    """One file for each protocol, examples included.

    Its rows have an `item`, a `context`, the texts that may continue it (`choices`), the number of the right one
    (`gold`), perhaps a `part` and what marks the rows about one text (`about`).
    """

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
