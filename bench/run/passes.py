"""The tokens that measurements put through a model, counted from their tasks and the sizes of their files. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, singledispatch
from math import inf

from bench.data.pack import Pack
from bench.protocol import Protocol
from bench.registry import tasks_named
from bench.run.cells import ArtifactCell, MeasureCell
from bench.task import GENERATION, ContinuationTask, GenerationTask, PerplexityTask, SizeTask
from bench.task_accuracy import CPU_TOKENS, GPU_TOKENS, ChoiceTask, LmEvalTask
from bench.task_divergence import DivergenceTask
from bench.task_exact_match import AnswerTask
from bench.task_gold import GoldTask
from bench.task_kind import TaskSpec

TOKENS_OF_A_BYTE = 0.7
"""Tokens for each byte of a Parquet file of text: 0.5 to 0.9 in those of the tasks."""
TOKENS_OF_TEXT = 0.5
"""Tokens for each byte of a plain text, at most: 0.2 to 0.3 in rendered questions, 0.4 to 0.7 in formulas."""
TYPICAL = {
    "alpaca_cleaned/train": (51_760, 13_200_000),
    "alpaca_en_demo/train": (999, 250_805),
    "arc_challenge/test": (1172, 117_643),
    "arc_easy/test": (2376, 189_383),
    "boolq/validation": (3270, 667_941),
    "hellaswag/validation": (10_042, 3_097_681),
    "mmlu/dev": (285, 55_015),
    "mmlu/test": (14_042, 2_178_859),
    "openbookqa/test": (500, 36_651),
    "piqa/validation": (1838, 168_734),
    "wikitext2_raw/test": (4358, 392_342),
    "winogrande/validation": (1267, 49_874),
}
"""Rows and bytes of files that a plan may list before they are here."""
PARTS = 57
"""Parts of a task that has any: MMLU's subjects."""
ANSWER, LONGEST = 24, 64
"""Tokens of an answer in the model's own words, and of the longest of a batch."""
NOTICE = 200
"""Tokens of the notice (`bench.blocks.notice`)."""


@dataclass(frozen=True)
class Passes:
    """Tokens that go through a model, in windows of so many, in so many passes; `dense`: 1 where the dense one's do."""

    tokens: float
    window: int
    times: float
    dense: int = 0


def passes_of(job: ArtifactCell, cell: MeasureCell) -> Passes | None:
    """What a measurement does; None for a kind of task whose work is not known."""
    [task] = tasks_named(cell.task)
    return _passes(task.spec, task.protocol, task.limit, GPU_TOKENS if job.device == "cuda" else CPU_TOKENS)


@singledispatch
def _passes(spec: TaskSpec, protocol: str, limit: int | None, budget: int) -> Passes | None:
    return None


@_passes.register
def _(spec: SizeTask, protocol: str, limit: int | None, budget: int) -> Passes:
    return Passes(0, 1, 0)


@_passes.register
def _(spec: ChoiceTask, protocol: str, limit: int | None, budget: int) -> Passes:
    """Each item has examples of its own, unless they are the first ones; then they are read once."""
    items, question, examples = _items(spec, protocol, limit)
    if not examples or not isinstance(spec, LmEvalTask):
        return Passes(items * question, round(question), items * question / budget)
    read = (PARTS if spec.by else 1) if spec.repeats_examples(Protocol.parse(protocol)) else items
    total = items * question + read * examples
    return Passes(total, round(question + examples), total / budget)


@_passes.register
def _(spec: AnswerTask, protocol: str, limit: int | None, budget: int) -> Passes:
    """Each prompt is read whole; then a batch takes a pass for each token of its longest answer."""
    items, question, examples = _items(spec, protocol, limit)
    prompt, room = question + examples, spec.cached[budget == GPU_TOKENS]
    batches = items / max(1.0, room // (prompt + LONGEST))
    return Passes(items * (prompt + ANSWER), round(prompt + ANSWER), batches * (1 + LONGEST))


@_passes.register
def _(spec: GoldTask, protocol: str, limit: int | None, budget: int) -> Passes:
    rows, tokens = size_of(spec.texts[protocol.split("+")[0]])
    items, mean = min(limit or rows, rows), tokens / max(rows, 1)
    return Passes(items * mean, round(mean), items * mean / budget)


@_passes.register
def _(spec: PerplexityTask, protocol: str, limit: int | None, budget: int) -> Passes:
    return _windows(spec.text, protocol, limit, budget)


@_passes.register
def _(spec: DivergenceTask, protocol: str, limit: int | None, budget: int) -> Passes:
    [text] = spec.data()
    return replace(_windows(text, protocol.partition("/")[2], limit, budget), dense=1)


@_passes.register
def _(spec: GenerationTask, protocol: str, limit: int | None, budget: int) -> Passes | None:
    match = GENERATION.match(protocol)
    if match is None:
        return None
    prompt, new, batches = int(match["prompt"]), int(match["new"]), [int(match["batch"])]
    while match["most"] and batches[-1] < int(match["most"]):
        batches.append(2 * batches[-1])
    runs = 2 * spec.rounds + 2  # each round is a pair in both orders
    return Passes(runs * sum(batches) * (prompt + new), prompt + new, runs * len(batches) * new, dense=1)


@_passes.register
def _(spec: ContinuationTask, protocol: str, limit: int | None, budget: int) -> Passes:
    new = int(protocol.removeprefix("n"))
    return Passes(len(spec.beginnings) * 2 * new, 2 * new, len(spec.beginnings) * new, dense=1)


def _items(spec: ChoiceTask, protocol: str, limit: int | None) -> tuple[int, float, float]:
    """Items, and the tokens of one question with its answer and of its examples."""
    asks = Protocol.parse(protocol)
    rows, tokens = size_of(spec.data(str(asks))[0])
    by = isinstance(spec, LmEvalTask) and spec.by is not None
    items = min(limit * (PARTS if by else 1) if limit else rows, rows)
    question = tokens / max(rows, 1) + (NOTICE if "notice" in asks.flags else 0)
    if not isinstance(spec, LmEvalTask) or not asks.shots:
        return items, question, 0.0
    known = size_of(spec.examples) if spec.examples else (rows, tokens)
    return items, question, asks.shots * (known[1] / known[0] if known[0] else question)


def _windows(text: str, protocol: str, limit: int | None, budget: int) -> Passes:
    window = int(protocol.split("+")[0])
    tokens = min(size_of(text)[1], limit * window if limit else float("inf"))
    return Passes(tokens, window, tokens / max(budget, window))


def size_of(ref: str) -> tuple[int, float]:
    """Rows of a file, and about how many tokens they hold; (0, 0) where it is neither here nor known."""
    here = {file.ref: (file.entry.rows, file.entry.bytes) for file in Pack.default().files()}
    rows, size = here.get(ref) or TYPICAL.get(ref, (0, 0))
    return rows, TOKENS_OF_A_BYTE * size


def longest(ref: str) -> float:
    """About how many tokens the longest `context` of a file of rendered prompts has; infinite where it is not here.

    The size of the file says little: the examples that all contexts repeat take no room in it.
    """
    pack = Pack.default()
    return TOKENS_OF_TEXT * _longest(ref, pack.sha256(ref)) if pack.has(ref) else inf


@lru_cache
def _longest(ref: str, sha256: str) -> int:
    """Bytes of the longest context, read once for each content."""
    return max((len(text.encode()) for text in Pack.default().column(ref, "context")), default=0)
