"""Kinds of metrics: all that a metric's id says about its number, in one place. Neither torch nor numpy.

A metric id is `<task>.<metric>@<protocol>`. All code that shows, ranks, checks or compares numbers asks here for their
kind. To add a kind, add a `Kind` to `KINDS`; nothing else is needed where its evidence has a form that is here.
"""

from __future__ import annotations

import math

from bench.record.kind import Form, Gap, Kind
from bench.record.kinds_compared import (
    ANSWER_FLIPS,
    ANSWER_FLIPS_MEAN,
    DIVERGENCE,
    FLATTERY,
    FLIPS,
    FLIPS_MEAN,
    TOP_TOKEN,
)

SPEEDUP = "generate.speedup"
"""The speed-up over the dense model, without its protocol."""


def kind_of(metric: str) -> Kind:
    """The kind of a metric id, with or without its protocol; `UNKNOWN` where no kind has it."""
    return _found(metric)[0]


def form_of(metric: str) -> Form:
    """Unit, direction and title of a metric id; no unit, direction or title where no kind has it."""
    return _found(metric)[1]


def name_of(metric: str) -> str:
    """A metric id without its protocol, `<task>.<metric>`."""
    return metric.partition("@")[0]


def split(metric: str) -> tuple[str, str, str]:
    """Task, metric and protocol of a metric id."""
    name, _, protocol = metric.partition("@")
    task, _, kind = name.partition(".")
    return task, kind, protocol


def _found(metric: str) -> tuple[Kind, Form]:
    task, name, _ = split(metric)
    for key in (f"{task}.{name}", f"*.{name}"):
        for kind in KINDS:
            if key in kind.metrics:
                return kind, kind.metrics[key]
    return UNKNOWN, Form("", "none", "")


REMOVED = Kind(
    "removed",
    "Size",
    {
        "removed.params": Form("fraction", "none", "removed (% of parameters)"),
        "removed.block_params": Form("fraction", "none", "removed (% of the blocks' parameters)"),
        "removed.macs": Form("fraction", "none", "removed (% of MACs)"),
    },
    first=("removed.params",),
    footnote="*removed* is the share of the dense model's parameters (of its decoder blocks, of its "
    "multiply-accumulates) that is really gone, whatever the target asked for.",
)
PARAMS = Kind(
    "params",
    "Size",
    {
        "params.stored": Form("parameters", "lower", "parameters"),
        "params.nonzero": Form("parameters", "lower", "parameters not zero"),
        "params.body": Form("parameters", "lower", "parameters outside embeddings"),
    },
    task="size",
    first=("params.stored",),
)
BYTES = Kind(
    "bytes",
    "Size",
    {
        "bytes.disk": Form("bytes", "lower", "checkpoint on disk"),
        "bytes.resident": Form("bytes", "lower", "weights in memory"),
    },
    task="size",
)
MACS = Kind(
    "macs",
    "Size",
    {"macs.total": Form("MACs", "lower", "MACs")},
    task="size",
    protocol="window",
    footnote="*MACs*: multiply-accumulates of one sequence of as many tokens as the protocol says.",
)
PERPLEXITY = Kind(
    "perplexity",
    "Perplexity",
    {"*.ppl_token": Form("ppl", "lower", "{task} ppl")},
    evidence="windows",
    value=math.exp,
    has_neighbours=True,
    is_quality=True,
    side="models text",
    gap=Gap("loss", "nats/token"),
    first=("wikitext2.ppl_token",),
    no_first="There is no WikiText-2 perplexity here: {} is another text, and its numbers are not to be compared with "
    "those on WikiText-2.",
    noun="perplexity",
    axis="perplexity per token",
    protocol="window",
    footnote="*ppl*: perplexity per token, exp(summed negative log-likelihood / number of targets) over windows "
    "without overlap; the protocol is the window's length in tokens, `limit` the number of windows. Another window "
    "length or another text gives other numbers.",
)
TEXT_BITS = Kind(
    "bits per byte",
    "Perplexity",
    {"*.bits_per_byte": Form("bits/byte", "lower", "{task} text (bits/byte)")},
    evidence="windows",
    value=lambda nats: nats / math.log(2),
    has_neighbours=True,
    side="models text",
    gap=Gap("loss", "bits/byte", 1 / math.log(2)),
    noun="bits per byte of a text",
    axis="bits per byte",
    protocol="window",
    footnote="*text (bits/byte)*: the loss behind the perplexity in bits / UTF-8 bytes of the targets, which models "
    "with other tokenizers may be compared by. Within a model it says what the perplexity says, and is not ranked.",
)
ACCURACY = Kind(
    "accuracy",
    "Accuracy",
    {
        "*.acc": Form("fraction", "higher", "{task} acc (%)"),
        "*.acc_norm": Form("fraction", "higher", "{task} acc_norm (%)"),
        "*.acc_by_subject": Form("fraction", "higher", "{task} acc, mean over subjects (%)", over_parts=True),
    },
    evidence="items",
    is_quality=True,
    side="knows",
    needs_signal=True,
    least=100,
    gap=Gap("accuracy", "points", 100.0, 1),
    mean="mean",
    noun="accuracy",
    axis="accuracy (%)",
    footnote="Accuracies are in % of the items, by the task's own metric; `0shot`: no examples in the prompt; "
    "`limit`: the first so many items.",
)
MEAN = Kind(
    "mean",
    "Means over tasks",
    {
        "*.mean": Form("fraction", "higher", "{task} mean (%)"),
        "*.signal_mean": Form("fraction", "higher", "{task} mean with signal (%)"),
    },
    is_quality=True,
    side="knows",
    gap=Gap("mean", "points", 100.0, 1),
    over=ACCURACY,
    noun="mean accuracy",
    axis="mean accuracy (%)",
    footnote="A *mean* is unweighted over all tasks of its group, and exists only where every one was measured under "
    "that protocol.",
)
BPB = Kind(
    "bpb",
    "Bits per byte of gold answers",
    {"*.bpb": Form("bits/byte", "lower", "{task} (bits/byte)")},
    evidence="windows",
    value=lambda nats: nats / math.log(2),
    is_quality=True,
    side="can say",
    needs_signal=True,
    least=10,
    gap=Gap("loss", "bits/byte", 1 / math.log(2)),
    mean="bpb_mean",
    noun="bits per byte of gold answers",
    axis="bits per byte of gold answers",
    footnote="*bits/byte*: what it costs the model to say the gold answers, given their contexts: summed negative "
    "log-likelihood in bits / their UTF-8 bytes. Lower is better. `5shot`: examples in the context.",
)
BPB_MEAN = Kind(
    "bpb mean",
    "Bits per byte, mean over tasks",
    {
        "*.bpb_mean": Form("bits/byte", "lower", "{task} mean (bits/byte)"),
        "*.signal_bpb_mean": Form("bits/byte", "lower", "{task} mean with signal (bits/byte)"),
    },
    is_quality=True,
    side="can say",
    gap=Gap("mean", "bits/byte", 1 / math.log(2)),
    over=BPB,
    noun="mean bits per byte of gold answers",
    axis="mean bits per byte of gold answers",
    footnote="A *mean* in bits per byte is unweighted over the tasks of its group; `mixed`: each has its own protocol.",
)
EXACT_MATCH = Kind(
    "exact match",
    "Answers",
    {
        "*.exact_match": Form("fraction", "higher", "{task} right (%)"),
        "*.exact_match_flexible_extract": Form("fraction", "higher", "{task} right, by its last number (%)"),
        "*.prompt_level_strict_acc": Form("fraction", "higher", "{task} followed (%)"),
    },
    evidence="items",
    is_quality=True,
    side="can say",
    needs_signal=True,
    least=100,
    gap=Gap("right answers", "points", 100.0, 1),
    noun="right answers",
    axis="right answers (%)",
    footnote="*right*: the share of the questions to which the model's own greedy answer, cut at the task's texts to "
    "stop at, is the right one as lm-eval compares them. Guessing gives nothing.",
)
GENERATION = Kind(
    "generation",
    "Generation",
    {
        "*.tokens_per_s": Form("tokens/s", "higher", "generation (tokens/s)"),
        "*.requests_per_s": Form("requests/s", "higher", "generation (requests/s)"),
        "*.prefill_tokens_per_s": Form("tokens/s", "higher", "prefill (tokens/s)"),
        "*.decode_tokens_per_s": Form("tokens/s", "higher", "decoding (tokens/s)"),
        "*.speedup": Form("ratio", "higher", "speed-up"),
        "*.roofline_speedup": Form("ratio", "none", "speed-up possible (roofline)"),
        "*.prefill_speedup": Form("ratio", "higher", "speed-up of prefill"),
        "*.decode_speedup": Form("ratio", "higher", "speed-up of decoding"),
        "*.ttft_ms": Form("ms", "lower", "time to first token (ms)"),
        "*.itl_ms": Form("ms", "lower", "between two tokens (ms)"),
        "*.itl_p95_ms": Form("ms", "lower", "between two tokens, p95 (ms)"),
        "*.itl_p99_ms": Form("ms", "lower", "between two tokens, p99 (ms)"),
        "*.prefill_ms": Form("ms", "lower", "prefill (ms)"),  # of the first engine
        "*.decode_ms": Form("ms", "lower", "decoding, for a token (ms)"),
        "*.cold_start_s": Form("s", "lower", "cold start (s)"),
        "*.energy_per_token": Form("J", "lower", "energy per token (J)"),
        "*.best_batch": Form("sequences", "none", "batch of the best throughput"),
        "*.peak_memory": Form("bytes", "lower", "generation: peak memory"),
        "*.cache_memory": Form("bytes", "lower", "generation: key/value cache"),
        "*.activation_memory": Form("bytes", "lower", "generation: activations"),
    },
    footnote="Generation: `hf/b1/p64/n128` is transformers, batch 1, 64 prompt tokens, 128 new tokens; *speed-up* "
    "is the dense model's time over this one's, measured in turn on the same machine; *possible* is what the machine's "
    "measured bandwidth and arithmetic would allow; *disturbed*: others used the machine meanwhile.",
)
CONTINUATION = Kind("continuation", "Other", {"*.agreement": Form("fraction", "none", "{task} as dense (%)")})
UNKNOWN = Kind("unknown", "Other", {})
"""The kind of all metrics that no entry has: they are shown as recorded, and count for nothing."""
COST = Kind(
    "cost",
    "Cost",
    {
        "cost.seconds": Form("s", "lower", "compressing (s)"),
        "cost.peak_memory": Form("bytes", "lower", "compressing: peak memory"),
        "cost.calibration_tokens": Form("tokens", "lower", "compressing: calibration tokens"),
        "cost.optimiser_steps": Form("steps", "lower", "compressing: optimiser steps"),
        "cost.trainable_parameters": Form("parameters", "lower", "compressing: trainable parameters"),
    },
    footnote="*compressing* is the wall time of compression and recovery, without loading and saving; its peak memory "
    "is what it took beyond the loaded model.",
)
KINDS: list[Kind] = [
    REMOVED,
    PARAMS,
    BYTES,
    MACS,
    PERPLEXITY,
    TEXT_BITS,
    ACCURACY,
    MEAN,
    BPB,
    BPB_MEAN,
    EXACT_MATCH,
    FLATTERY,
    DIVERGENCE,
    TOP_TOKEN,
    FLIPS,
    FLIPS_MEAN,
    ANSWER_FLIPS,
    ANSWER_FLIPS_MEAN,
    GENERATION,
    CONTINUATION,
    UNKNOWN,
    COST,
]
"""In the order of their columns and footnotes; a mean comes before what it is made of."""


def place_of(kind: Kind) -> tuple[int, bool]:
    """The sort key of a kind's columns."""
    return KINDS.index(kind.over or kind), kind.over is None
