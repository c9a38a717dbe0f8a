"""What a task is: the schema of `tasks/*.yaml`, and the ids under which suites and metrics name a task.

A task id is `<name>@<protocol>` with `/limit<n>` where only the first n items (windows, for perplexity) are used:
`piqa@0shot+nobos/limit20`, `wikitext2@2048`, `generate@hf/b1/p64/n128`. A metric id puts the metric's name after the
task's. `bench.protocol` has the flags of a protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.errors import UsageError, unknown
from bench.protocol import BOS, WHOLE, Protocol
from bench.task_accuracy import AccuracyTask, RenderedTask
from bench.task_divergence import DivergenceTask
from bench.task_exact_match import ExactMatchTask, OpenTask
from bench.task_gold import GoldTask
from bench.task_group import TaskGroup
from bench.task_kind import DataRef, TaskSpec
from bench.yamlfile import validated

TASK_ID = re.compile(
    r"^(?P<name>[a-z0-9_]+)(?:\.(?P<metric>[a-z0-9_]+))?(?:@(?P<protocol>[a-z0-9_/+-]+?))?"
    r"(?:/limit(?P<limit>[1-9]\d{0,8}))?$"
)
NO_LIMIT = re.compile(r"/limit(?![1-9]\d{0,8}$)")
"""Where an id has a limit that is none."""
BACKENDS = ("hf", "vllm")
"""Engines that generate: modules of `bench.measure.generation`. `hf` is transformers."""
GENERATION = re.compile(
    rf"^(?P<backend>{'|'.join(BACKENDS)})/b(?P<batch>[1-9]\d{{0,8}})(?:-(?P<most>[1-9]\d{{0,8}}))?"
    r"/p(?P<prompt>[1-9]\d{0,8})/n(?P<new>[1-9]\d{0,8})$"
)
GENERATION_TEXT = f"{'|'.join(BACKENDS)}/b<batch>/p<prompt tokens>/n<new tokens>"
"""`b1-64` is a sweep: batches 1, 2, 4, … until the throughput stops growing, 64 at most."""


class PerplexityTask(TaskSpec):
    """Perplexity of one text in windows without overlap (LLM-Pruner's protocol); the protocol is the window length.

    The text is tokenised once, so that a BOS can only be its very first token, never that of every window: `2048` has
    it where the tokenizer adds one by itself, `2048+bos` always, `2048+nobos` never.
    """

    module = "bench.measure.perplexity"
    engine = "perplexity/2"
    seconds = 20.0
    has_limit = True
    flags = BOS

    kind: Literal["perplexity"]
    text: DataRef
    column: str
    join: str = Field(description="what stands between two rows when they are joined into one text")
    windows: tuple[int, ...] = Field(min_length=1, description="usual window lengths; the first is the default")

    def data(self, protocol: str | None = None) -> list[str]:
        return [self.text]

    def protocol(self, given: str | None) -> str:
        protocol = Protocol.parse(given or str(self.windows[0]), self.flags, f"task {self.name}")
        if not WHOLE.fullmatch(protocol.asked) or int(protocol.asked) < 2:
            raise UsageError(f"task {self.name}: protocol '{given}' is not a window length of 2 tokens or more")
        return str(Protocol(str(int(protocol.asked)), protocol.flags))

    def usual(self) -> Sequence[str]:
        return [str(window) for window in self.windows]


class GenerationTask(TaskSpec):
    """Greedy generation with a fixed number of prompt and new tokens, timed in turn with the dense model."""

    module = "bench.measure.generation"
    engine = "generation/3"
    seconds = 40.0
    needs_weights = False
    is_timed = True
    models = 2  # each in a process of its own; the worker frees its model
    processes = 2
    working = 160_000_000  # measuring the machine

    kind: Literal["generation"]
    protocols: tuple[str, ...] = Field(min_length=1)
    grids: dict[str, tuple[str, ...]] = Field({}, description="protocols, without their backend, under one name")
    rounds: int = Field(ge=2, description="timed rounds of each model")

    @model_validator(mode="after")
    def _known(self) -> GenerationTask:
        grids = [f"{BACKENDS[0]}/{work}" for grid in self.grids.values() for work in grid]
        for protocol in [*self.protocols, *grids]:
            if not GENERATION.match(protocol):
                raise ValueError(f"'{protocol}' is not {GENERATION_TEXT}")
        return self

    def protocol(self, given: str | None) -> str:
        protocol = given or self.protocols[0]
        match = GENERATION.match(protocol)
        if match is None:
            grids = "".join(f" or {'|'.join(BACKENDS)}/{name}" for name in self.grids)
            raise UsageError(f"task {self.name}: protocol '{protocol}' is not {GENERATION_TEXT}{grids}")
        if match["most"] and int(match["most"]) < 2 * int(match["batch"]):
            raise UsageError(f"task {self.name}: protocol '{protocol}': its second batch must be twice its first")
        return protocol

    def protocols_of(self, given: str | None) -> list[str]:
        """The protocols that a protocol or the name of a grid (`hf/grid`) stands for."""
        backend, _, name = (given or "").partition("/")
        return [self.protocol(f"{backend}/{work}") for work in self.grids.get(name, ())] or [self.protocol(given)]

    def usual(self) -> Sequence[str]:
        return self.protocols

    @classmethod
    def why_not_here(cls, protocol: str) -> str | None:
        """vLLM may be missing."""
        if protocol.partition("/")[0] == "vllm" and find_spec("vllm") is None:
            return "vLLM is not installed; on a CPU use the one of `tox -e vllm`, with a GPU install leanboard[vllm]"
        return None


class SizeTask(TaskSpec):
    """Parameters, bytes and multiply-accumulates of the checkpoint; the protocol is the MACs' sequence length."""

    module = "bench.measure.size"
    engine = "size/1"
    seconds = 2.0
    needs_weights = False

    kind: Literal["size"]

    def protocol(self, given: str | None) -> str:
        if given is not None and not WHOLE.fullmatch(given):
            raise UsageError(f"task {self.name}: protocol '{given}' is not a sequence length")
        return given or "64"


class ContinuationTask(TaskSpec):
    """Greedy continuations of fixed beginnings; the protocol says how many tokens, `n24`."""

    module = "bench.measure.continuations"
    engine = "continuation/1"
    seconds = 4.0
    models = 2  # the dense model continues them too

    kind: Literal["continuation"]
    beginnings: tuple[str, ...] = Field(min_length=1)

    def protocol(self, given: str | None) -> str:
        if given is not None and not re.fullmatch(r"n[1-9]\d{0,8}", given):
            raise UsageError(f"task {self.name}: protocol '{given}' is not n<new tokens>")
        return given or "n24"


KINDS: dict[str, type[TaskSpec]] = {
    "accuracy": AccuracyTask,
    "exact_match": ExactMatchTask,
    "open_answer": OpenTask,
    "gold": GoldTask,
    "rendered_accuracy": RenderedTask,
    "perplexity": PerplexityTask,
    "generation": GenerationTask,
    "size": SizeTask,
    "continuation": ContinuationTask,
    "divergence": DivergenceTask,
}
"""To add a kind of task, add a class here, the module that it names, and a YAML. If its metrics are of a new kind too,
add an entry to `bench.record.kinds`."""


def spec_of(content: Any, where: Any) -> TaskSpec | TaskGroup:
    """A validated task file; errors name it by `where`.

    Raises:
        UsageError: no such kind of task, or a field that does not fit it.
    """
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "group":
        return validated(TaskGroup, content, where)
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown("kind", str(kind), [*KINDS, "group"], str(where))
    return validated(KINDS[kind], content, where)


def kind_of_task(name: str) -> type[TaskSpec]:
    """The kind of task of that name. Raises UsageError where there is none."""
    if name not in KINDS:
        raise unknown("kind of task", name, KINDS)
    return KINDS[name]


@dataclass(frozen=True)
class Task:
    """A task with its protocol and limit: what one cell measures."""

    spec: TaskSpec
    protocol: str
    limit: int | None = None

    @property
    def suffix(self) -> str:
        """The protocol part of the metric ids: '0shot/limit20'."""
        return self.protocol + (f"/limit{self.limit}" if self.limit else "")

    @property
    def id(self) -> str:
        return f"{self.spec.name}@{self.suffix}"

    def metric_id(self, metric: str) -> str:
        return f"{self.spec.name}.{metric}@{self.suffix}"

    def data(self) -> list[str]:
        """The files of the data pack that are read."""
        return self.spec.data(self.protocol)

    def settings(self) -> dict[str, Any]:
        """Everything in the task that changes its value; it enters the key."""
        return {"task": self.spec.settings(self.protocol), "protocol": self.protocol, "limit": self.limit}
