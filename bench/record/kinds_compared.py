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
FLIPS = Kind(
    "flips",
    "Flips",
    {
        "*.acc_flips": Form("fraction", "lower", "{task} flips (%)"),
        "*.acc_norm_flips": Form("fraction", "lower", "{task} flips (%)"),
    },
    evidence="items",
    is_quality=True,
    side="stays itself",
    needs_signal=True,
    least=100,
    is_derived=True,
    gap=Gap("flips", "points", 100.0, 1),
    mean="flips_mean",
    noun="flips",
    axis="flips (%)",
    footnote="*flips*: in how many % of the items the model is right where the dense model is wrong, or wrong where it "
    "is right, by the task's own accuracy; 0 where nothing moved, even where the accuracy is the same by chance.",
)
FLIPS_MEAN = Kind(
    "mean of flips",
    "Flips, means over tasks",
    {
        "*.flips_mean": Form("fraction", "lower", "{task} flips, mean (%)"),
        "*.signal_flips_mean": Form("fraction", "lower", "{task} flips with signal, mean (%)"),
    },
    is_quality=True,
    side="stays itself",
    gap=Gap("flips", "points", 100.0, 1),
    over=FLIPS,
    noun="mean flips",
    axis="mean flips (%)",
)
ANSWER_FLIPS = Kind(
    "other answers",
    "Other answers",
    {
        "*.acc_answer_flips": Form("fraction", "lower", "{task} other answers (%)"),
        "*.acc_norm_answer_flips": Form("fraction", "lower", "{task} other answers (%)"),
    },
    evidence="items",
    is_quality=True,
    side="stays itself",
    needs_signal=True,
    least=100,
    is_derived=True,
    gap=Gap("other answers", "points", 100.0, 1),
    mean="answer_flips_mean",
    noun="other answers",
    axis="other answers than the dense model's (%)",
    footnote="*other answers*: in how many % of the items the model chooses another answer than the dense model, right "
    "or wrong.",
)
ANSWER_FLIPS_MEAN = Kind(
    "mean of other answers",
    "Other answers, means over tasks",
    {
        "*.answer_flips_mean": Form("fraction", "lower", "{task} other answers, mean (%)"),
        "*.signal_answer_flips_mean": Form("fraction", "lower", "{task} other answers with signal, mean (%)"),
    },
    is_quality=True,
    side="stays itself",
    gap=Gap("other answers", "points", 100.0, 1),
    over=ANSWER_FLIPS,
    noun="mean of other answers",
    axis="mean of other answers (%)",
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
    "another when it is asked without choices, by the same protocol. What chooses nothing right has none: read it next "
    "to the accuracy. It ranks nothing.",
)
