"""Kinds of metrics that compare: a model with the dense one, or one task with another. Neither torch nor numpy."""

from __future__ import annotations

from bench.record.kind import Form, Gap, Kind

DIVERGENCE = Kind(
    "divergence",
    "Divergence from the dense model",
    {"*.kl": Form("nats/token", "lower", "{task} KL (nats)")},
    evidence="windows",
    has_neighbours=True,
    is_quality=True,
    side="stays itself",
    gap=Gap("divergence", "nats/token"),
    noun="divergence",
    axis="divergence from the dense model (nats per token)",
    protocol="text and window",
    footnote="*KL*: Kullback-Leibler divergence of a model's next token from the dense model's, over the full "
    "vocabulary, in nats per token, on the windows of a perplexity; 0 where nothing moved.",
)
TOP_TOKEN = Kind(
    "top token",
    "Divergence from the dense model",
    {"*.top1": Form("fraction", "higher", "{task} same top token (%)")},
    evidence="windows",
    has_neighbours=True,
    is_quality=True,
    side="stays itself",
    gap=Gap("same top token", "points", 100.0, 1),
    noun="same top token",
    axis="same top token as the dense model (%)",
    protocol="text and window",
    footnote="*same top token*: in how many % of the positions the likeliest next token is the dense model's.",
)


def _flips(name: str, noun: str, metric: str, footnote: str) -> tuple[Kind, Kind]:
    """A kind of flips of a task's accuracy, `<accuracy>_<metric>`, and that of its mean over tasks."""
    gap = Gap(noun, "points", 100.0, 1)
    of_task = Kind(
        noun,
        noun.capitalize(),
        {f"*.{of}_{metric}": Form("fraction", "lower", f"{{task}} {noun} (%)") for of in ("acc", "acc_norm")},
        evidence="items",
        is_quality=True,
        side="stays itself",
        needs_signal=True,
        least=100,
        is_derived=True,
        gap=gap,
        mean=f"{metric}_mean",
        noun=noun,
        axis=f"{name} (%)",
        footnote=footnote,
    )
    mean = Kind(
        f"mean of {noun}",
        f"{noun.capitalize()}, means over tasks",
        {
            f"*.{metric}_mean": Form("fraction", "lower", f"{{task}} {noun}, mean (%)"),
            f"*.signal_{metric}_mean": Form("fraction", "lower", f"{{task}} {noun} with signal, mean (%)"),
        },
        is_quality=True,
        side="stays itself",
        gap=gap,
        over=of_task,
        noun=f"mean {noun}",
        axis=f"mean {noun} (%)",
    )
    return of_task, mean


FLIPS, FLIPS_MEAN = _flips(
    "flips",
    "flips",
    "flips",
    "*flips*: in how many % of the items the model is right where the dense model is wrong, or wrong where it "
    "is right, by the task's own accuracy; 0 where nothing moved, even where the accuracy is the same by chance.",
)
ANSWER_FLIPS, ANSWER_FLIPS_MEAN = _flips(
    "other answers than the dense model's",
    "other answers",
    "answer_flips",
    "*other answers*: in how many % of the items the model chooses another answer than the dense model, right "
    "or wrong.",
)
FLATTERY = Kind(
    "flattery",
    "Chosen right, and not said",
    {"*.flattery": Form("fraction", "lower", "{task} chosen right, not said (%)")},
    evidence="items",
    side="can say",
    least=100,
    is_derived=True,
    noun="flattery",
    axis="chosen right and not said (%)",
    footnote="*chosen right, not said*: in how many % of the questions the model chooses the right answer, and gives "
    "another when it is asked without choices, by the same protocol. An upper bound: a right answer in other words "
    "counts as not said, so compare rows, not the number. What chooses nothing right has none: read it next to the "
    "accuracy. It ranks nothing.",
)
