"""Tasks whose items are questions with answers to choose from."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.errors import UsageError
from bench.lm_eval_files import Examples, examples_of, resolved, stock_yaml
from bench.protocol import BOS, EXAMPLES, Protocol
from bench.record.kinds import kind_of
from bench.task_kind import NO_INGREDIENTS, DataRef, TaskSpec
from bench.task_rendered import RenderedTexts

CPU_TOKENS, GPU_TOKENS = 1024, 8192
"""Tokens in one forward pass of the scorer."""
BEGINNING_BYTES = 2 * 10**9
"""Keys and values that it keeps at most, of what many prompts begin with."""
SHOTS = re.compile(r"^(\d{1,9})shot$")


class ChoiceTask(TaskSpec):
    """What all of them share: the scorer, and what a metric may be."""

    module = "bench.measure.accuracy"
    engine = f"accuracy/2 lm-eval/0.4 packed/cpu{CPU_TOKENS}/gpu{GPU_TOKENS}"
    seconds = 7.0
    has_limit = True
    imports = 120_000_000  # lm-eval, measured

    metrics: tuple[str, ...]
    headline: str = Field(description="the metric that stands for the task in a suite's mean")
    chance: float | None = Field(None, ge=0, lt=1, description="the score of guessing, where it is known")

    @field_validator("metrics")
    @classmethod
    def _are_shares(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for metric in value:
            if not kind_of(f"task.{metric}").is_share:
                raise ValueError(f"'{metric}' is not a share of items that bench.record.kinds knows")
        return value


class LmEvalTask(ChoiceTask):
    """lm-eval's stock task with only its data source replaced; `5shot` puts five examples before each question.

    Examples are chosen as lm-eval does it: the first ones where its file says so, else drawn for each item in turn from
    one sequence of random numbers, so that the first items have the same examples under any limit.
    """

    flags: ClassVar[tuple[str, ...]] = (*BOS, "separate", "notice", "chat", *EXAMPLES)

    lm_eval: str = Field(description="name of the stock lm-eval task")
    splits: dict[str, DataRef] = Field(description="lm-eval split name -> file of the pack")
    examples: DataRef | None = Field(None, description="the file of the split that lm-eval takes examples from")
    by: dict[str, str] | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="column with the name of an item's part: the part that `lm_eval` is named by",
    )

    def data(self, protocol: str | None = None) -> list[str]:
        shots = 1 if protocol is None else Protocol.parse(protocol).shots
        return [*self.splits.values(), *([self.examples] if self.examples and shots else [])]

    def protocol(self, given: str | None) -> str:
        protocol = self._parsed(given or "0shot")
        about = [flag for flag in EXAMPLES if flag in protocol.flags]
        where = f"task {self.name}: protocol '{given}'"
        if not protocol.shots:
            if about:
                raise UsageError(f"{where}: +{about[0]} is about examples, and 0shot has none")
            return str(protocol)
        asks = self._asks
        if asks.never:
            raise UsageError(f"{where}: lm-eval asks this task without examples alone")
        if asks.split and not asks.is_evaluated and self.examples is None:
            raise UsageError(
                f"{where}: no examples are known; `examples` of its file must name the data of lm-eval's "
                f"{asks.role} '{asks.split}'"
            )
        if about and asks.are_fixed:
            raise UsageError(f"{where}: +{about[0]} changes nothing, as its examples are always the first ones")
        return str(protocol)

    def _parsed(self, given: str) -> Protocol:
        """The protocol `given`, with its shots in their one form."""
        protocol = Protocol.parse(given, self.flags, f"task {self.name}")
        shots = SHOTS.match(protocol.asked)
        if shots is None:
            flags = ", ".join(f"+{flag}" for flag in self.flags)
            raise UsageError(f"task {self.name}: protocol '{given}' is not <n>shot, with or without {flags}")
        return Protocol(f"{int(shots[1])}shot", protocol.flags, protocol.seed)

    @model_validator(mode="after")
    def _is_named_by_its_part(self) -> LmEvalTask:
        if self.by and not self.lm_eval.endswith(tuple(self.by.values())):
            raise ValueError(f"by: '{self.lm_eval}' does not end in '{next(iter(self.by.values()))}'")
        return self

    def repeats_examples(self, protocol: Protocol) -> bool:
        """Whether all items (of a part) have the same examples under a protocol that has some."""
        return "first_n" in protocol.flags or self._asks.are_fixed

    @property
    def _asks(self) -> Examples:
        return examples_of(resolved(stock_yaml(self.lm_eval))[1])

    def settings(self, protocol: str) -> dict[str, Any]:
        """Without fields that were added later, where they change nothing: keys of before stay as they are.

        Examples are chosen by lm-eval's own code, so that its exact version counts where there are some.
        """
        unused = {"by"} if self.by is None else set()
        unused |= {"examples"} if self.examples not in self.data(protocol) else set()
        sampler = {"sampler": f"lm-eval/{version('lm_eval')}"} if Protocol.parse(protocol).shots else {}
        return self.model_dump(mode="json", exclude=NO_INGREDIENTS | unused) | sampler


class AccuracyTask(LmEvalTask):
    """The answers to choose from are scored."""

    kind: Literal["accuracy"]


class PromptsTask(ChoiceTask, RenderedTexts):
    """Questions that others rendered."""

    flags: ClassVar[tuple[str, ...]] = (*BOS, "separate", "notice")


class RenderedTask(PromptsTask):
    """The answers to choose from are scored."""

    kind: Literal["rendered_accuracy"]
