"""What a task is: the schema of `tasks/*.yaml`, and the ids under which suites and metrics name a task.

A task id is `<name>@<protocol>` with `/limit<n>` where only the first n items (windows, for perplexity) are used:
`piqa@0shot/limit20`, `wikitext2@2048`, `generate@hf/b1/p64/n128`. A metric id puts the metric's name after the task's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from bench.errors import UsageError

DataRef = Annotated[str, Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="<dataset>/<split> of the data pack")]
TASK_ID = re.compile(
    r"^(?P<name>[a-z0-9_]+)(?:\.(?P<metric>[a-z0-9_]+))?(?:@(?P<protocol>[a-z0-9_/+-]+?))?(?:/limit(?P<limit>[1-9]\d*))?$"
)
ACCURACY = ("0shot", "0shot+notice")
"""Zero-shot, and the same with the notice that the model is pruned (`bench.blocks.notice`) before each context."""
CPU_TOKENS, GPU_TOKENS = 1024, 8192
"""Tokens in one forward pass of the accuracy scorer."""
BACKENDS = ("hf", "vllm")
"""What generates: modules of `bench.measure.generation`. `hf` is transformers."""
GENERATION = re.compile(
    rf"^(?P<backend>{'|'.join(BACKENDS)})/b(?P<batch>[1-9]\d*)(?:-(?P<most>[1-9]\d*))?"
    r"/p(?P<prompt>[1-9]\d*)/n(?P<new>[1-9]\d*)$"
)
GENERATION_TEXT = f"{'|'.join(BACKENDS)}/b<batch>/p<prompt tokens>/n<new tokens>"
"""`b1-64` is a sweep: batches 1, 2, 4, … until the throughput grows no more, 64 at most."""
NO_INGREDIENTS = {"description", "protocols", "grids", "windows", "headline", "chance"}
"""Fields of a task that describe it, list usual protocols or judge its numbers: they change none of them."""


def why_not_here(backend: str) -> str | None:
    """Why a backend, one of `BACKENDS`, cannot generate in this environment; None where it can."""
    if backend == "vllm" and find_spec("vllm") is None:
        return "vLLM is not installed; on a CPU use the one of `tox -e vllm`, with a GPU install leanboard[vllm]"
    return None


class BaseTask(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: int = 1
    description: str

    def data(self) -> list[str]:
        """The files of the data pack that the task reads, as `<dataset>/<split>`."""
        return []


class AccuracyTask(BaseTask):
    """A multiple-choice task: lm-eval's stock task with only its data source replaced."""

    kind: Literal["accuracy"]
    lm_eval: str = Field(description="name of the stock lm-eval task")
    splits: dict[str, DataRef] = Field(description="lm-eval split name -> file of the pack")
    metrics: tuple[str, ...]
    headline: str = Field(description="the metric that stands for the task in a suite's mean")
    chance: float = Field(ge=0, lt=1)

    def data(self) -> list[str]:
        return list(self.splits.values())

    def protocol(self, given: str | None) -> str:
        if given not in (None, *ACCURACY):
            raise UsageError(f"task {self.name}: protocol '{given}' is not known; known are {', '.join(ACCURACY)}")
        return given or ACCURACY[0]


class PerplexityTask(BaseTask):
    """Perplexity of one text in windows without overlap (LLM-Pruner's protocol); the protocol is the window length."""

    kind: Literal["perplexity"]
    text: DataRef
    column: str
    join: str = Field(description="what stands between two rows when they are joined into one text")
    windows: tuple[int, ...] = Field(description="usual window lengths; the first is the default")

    def data(self) -> list[str]:
        return [self.text]

    def protocol(self, given: str | None) -> str:
        window = given or str(self.windows[0])
        if not window.isdecimal() or int(window) < 2:
            raise UsageError(f"task {self.name}: protocol '{window}' is not a window length of 2 tokens or more")
        return str(int(window))


class GenerationTask(BaseTask):
    """Greedy generation with a fixed number of prompt and new tokens, timed in turn with the dense model."""

    kind: Literal["generation"]
    protocols: tuple[str, ...]
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

    def expand(self, given: str | None) -> list[str]:
        """The protocols that a protocol or the name of a grid (`hf/grid`) stands for."""
        backend, _, name = (given or "").partition("/")
        return [self.protocol(f"{backend}/{work}") for work in self.grids.get(name, ())] or [self.protocol(given)]


class SizeTask(BaseTask):
    """Parameters, bytes and multiply-accumulates of the checkpoint; the protocol is the MACs' sequence length."""

    kind: Literal["size"]

    def protocol(self, given: str | None) -> str:
        if given is not None and not given.isdecimal():
            raise UsageError(f"task {self.name}: protocol '{given}' is not a sequence length")
        return given or "64"


class ContinuationTask(BaseTask):
    """Greedy continuations of fixed beginnings; the protocol says how many tokens, `n24`."""

    kind: Literal["continuation"]
    beginnings: tuple[str, ...] = Field(min_length=1)

    def protocol(self, given: str | None) -> str:
        if given is not None and not re.fullmatch(r"n[1-9]\d*", given):
            raise UsageError(f"task {self.name}: protocol '{given}' is not n<new tokens>")
        return given or "n24"


class TaskGroup(BaseTask):
    """A named set of tasks with a mean that exists only where every member does."""

    kind: Literal["group"]
    members: tuple[str, ...] = Field(description="<task>.<metric> of each member")


TaskSpec = AccuracyTask | PerplexityTask | GenerationTask | SizeTask | ContinuationTask
TASK_FILE: TypeAdapter[TaskSpec | TaskGroup] = TypeAdapter(Annotated[TaskSpec | TaskGroup, Field(discriminator="kind")])


@dataclass(frozen=True)
class Task:
    """A task with its protocol and limit settled: what one cell measures."""

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

    def settings(self) -> dict[str, Any]:
        """Everything of the task that changes its value; goes into the key."""
        return {
            "task": self.spec.model_dump(mode="json", exclude=NO_INGREDIENTS),
            "protocol": self.protocol,
            "limit": self.limit,
        }
