"""The kind of task that holds a model against the dense one on the text of a perplexity task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bench.errors import UsageError, unknown
from bench.protocol import BOS, WHOLE, Protocol
from bench.task_kind import BaseTask, TaskSpec


class Text(BaseModel):
    """A text of the data pack: the rows of a column, joined into one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    column: str
    join: str


class DivergenceTask(TaskSpec):
    """How far a model's next tokens are from the dense model's; the protocol is that of a perplexity, `wikitext2/128`.

    It begins with the name of the perplexity task whose windows are read, then has that task's own protocol. `source`
    is that task's text, which is looked up (`with_tasks`) and never written in a file.
    """

    module = "bench.measure.divergence"
    engine = "divergence/1"
    seconds = 15.0
    has_limit = True
    flags = BOS
    needs_dense = True
    models = 2
    in_turn = True

    kind: Literal["divergence"]
    protocols: tuple[str, ...] = Field(min_length=1)
    source: Text | None = None

    @field_validator("source")
    @classmethod
    def _is_looked_up(cls, value: Text | None) -> Text | None:
        if value is not None:
            raise ValueError("is the text of the perplexity task that the protocol names")
        return value

    def data(self, protocol: str | None = None) -> list[str]:
        return [self.source.text] if self.source else []

    def protocol(self, given: str | None) -> str:
        protocol = Protocol.parse(given or self.protocols[0], self.flags, f"task {self.name}")
        name, _, window = protocol.asked.partition("/")
        if not name or not WHOLE.fullmatch(window) or int(window) < 2:
            raise UsageError(
                f"task {self.name}: protocol '{given}' is not <perplexity task>/<window of 2 tokens or more>"
            )
        return str(Protocol(f"{name}/{int(window)}", protocol.flags))

    def with_tasks(self, protocol: str, tasks: Mapping[str, BaseTask]) -> Self:
        name = protocol.partition("/")[0]
        texts = {known: task for known, task in tasks.items() if getattr(task, "kind", None) == "perplexity"}
        if name not in texts:
            raise unknown("perplexity task", name, texts, f"task {self.name}")
        return self.model_copy(update={"source": Text.model_validate(texts[name], from_attributes=True)})

    def usual(self) -> Sequence[str]:
        return self.protocols
