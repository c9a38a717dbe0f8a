"""Bits per byte of gold answers: what it costs a model to say what is right, given the question.

Source: the `bpb` of OLMo's evaluations, summed negative log-likelihood of the continuation over its UTF-8 bytes, here
over all items together: models with other tokenizers can be compared. Contexts come rendered, with their examples; a
text that is longer than the model takes loses its beginning, as in lm-eval. Exactly the bytes of an answer are scored:
where a token of the whole text would hold the context's end and the answer's start, the two are encoded apart (LLaMA's
tokenizer then gives the answer one space more).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bench.data.pack import Pack
from bench.errors import DataError, UsageError
from bench.measure.measurement import Measurement, Resources
from bench.measure.ratio import bits_per_byte
from bench.measure.rendered import ABOUT, CHOICES, CONTEXT, GOLD, PART, read_rendered
from bench.measure.scorer import NO_PREFIX, PackedLM, Request
from bench.measure.subject import Subject
from bench.protocol import Protocol
from bench.record.schema import Evidence, Windows
from bench.task import Task
from bench.task_gold import GoldTask

APART = "context and answer were encoded apart, as a token of the whole text holds parts of both"


def measure(task: Task, spec: GoldTask, subject: Subject, resources: Resources) -> Measurement:
    """Bits per byte (`bpb`) of the first `task.limit` answers, or all; nats and bytes of each are kept.

    Answers that an earlier run left in `resources.answers` are not computed again.

    Raises:
        UsageError: the tokenizer has no BOS for `+bos`.
        DataError: the file of the pack is missing, damaged or not of gold answers.
        LeanboardError: a log-probability is not finite, or an answer is longer than the model takes.
    """
    protocol = Protocol.parse(task.protocol)
    pairs = read(resources.pack, spec.texts[protocol.asked], is_shuffled="shuffled" in protocol.flags)[: task.limit]
    lm = subject.scorer.following(resources.on_progress, resources.answers, protocol)
    encoded = [_encoded(lm, *pair) for pair in pairs]
    nats = [-logp for logp, _ in lm.scored([request for request, _ in encoded])]
    sizes = [len(answer.encode()) for _, answer in pairs]
    cut = sum(len(context) + len(answer) > lm.max_length + 1 for (_, context, answer), _ in encoded)
    apart = sum(is_apart for _, is_apart in encoded)
    notes = [f"the context of {cut} of {len(pairs)} items was cut at its beginning to fit the model"] * (cut > 0)
    notes += [f"{apart} of {len(pairs)} items: {APART}"] * (apart > 0)
    evidence = Evidence(sums={"bpb": Windows(nll=nats, targets=sizes)}, notes=[*lm.notes, *notes])
    return Measurement([bits_per_byte(task.metric_id("bpb"), nats, sizes)], evidence)


def _encoded(lm: PackedLM, context: str, answer: str) -> tuple[Request, bool]:
    """The ids of a context and those of its answer alone; and whether they were encoded apart.

    What lm-eval does would score other bytes: it moves space at the end of the context into the answer, and counts off
    the context's ids where a token holds its end and the answer's start.
    """
    start = lm.tok_encode(context) if context else [lm.prefix_token_id]
    if start == [None]:
        raise UsageError(NO_PREFIX)
    whole = lm.tok_encode(context + answer)
    if whole[: len(start)] == start:
        return ((context, answer), start, whole[len(start) :]), False
    return ((context, answer), start, lm.tok_encode(answer, add_special_tokens=False)), bool(context)


def read(pack: Pack, ref: str, *, is_shuffled: bool = False) -> list[tuple[str, str]]:
    """The contexts and gold answers of a file, in order; shuffled, each answer has another item's context.

    Raises:
        DataError: as `read_rendered`, or there is no other item.
    """
    rows = read_rendered(pack, ref)
    others = _others(rows) if is_shuffled else list(range(len(rows)))
    if is_shuffled and any(i == other for i, other in enumerate(others)):
        raise DataError(f"{pack.path(ref)}: +shuffled needs two items or more (of each part), about two texts")
    return [(rows[other][CONTEXT], row[CHOICES][row[GOLD]]) for row, other in zip(rows, others, strict=True)]


def _others(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each item another one of its part, about another text, from half the part away on: neighbours may be alike.

    An item without another has itself.
    """
    members: dict[Any, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        members[row.get(PART)].append(i)
    texts = [row.get(ABOUT, i) for i, row in enumerate(rows)]
    others = list(range(len(rows)))
    for alike in members.values():
        for place, i in enumerate(alike, len(alike) // 2):
            away = (alike[(place + step) % len(alike)] for step in range(len(alike)))
            others[i] = next((other for other in away if texts[other] != texts[i]), i)
    return others
