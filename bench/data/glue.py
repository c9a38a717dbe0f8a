"""Training examples from GLUE: sentences with a question in words and its answer, as lm-eval's stock tasks put them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import DataError, UsageError
from bench.method import IGNORED, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairTemplate:
    """The prompt of a dataset, its row's columns in braces, and the answer that each label stands for."""

    columns: tuple[str, ...]
    prompt: str
    answers: tuple[str, ...]

    def pair(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Context and continuation of `row`, whose likelihood is what lm-eval scores.

        Raises:
            DataError: the row has no label (those of GLUE's test splits are hidden).
        """
        if row["label"] not in range(len(self.answers)):
            raise DataError(f"label: {row['label']} is none of 0..{len(self.answers) - 1}; is this a test split?")
        return self.prompt.format_map(row), " " + self.answers[row["label"]]


TEMPLATES = {
    "glue_cola": PairTemplate(
        ("sentence", "label"), "{sentence}\nQuestion: Does this sentence make sense?\nAnswer:", ("no", "yes")
    ),
    "glue_mrpc": PairTemplate(
        ("sentence1", "sentence2", "label"),
        "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same thing?\nAnswer:",
        ("no", "yes"),
    ),
    "glue_rte": PairTemplate(
        ("sentence1", "sentence2", "label"),
        "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:",
        ("True", "False"),
    ),
    "glue_sst2": PairTemplate(
        ("sentence", "label"),
        "{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:",
        ("negative", "positive"),
    ),
}
"""By dataset of the pack. Wording: lm-eval's tasks cola, mrpc, rte and sst2, so that what is trained is what is scored.
"""


def template_of(ref: str) -> PairTemplate | None:
    """The template of a file of the data pack, None where it is not GLUE's."""
    return TEMPLATES.get(ref.partition("/")[0])


def labelled_examples(
    rows: Sequence[Mapping[str, Any]], template: PairTemplate, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Rows as examples whose loss is taken on the answer alone: the tokens that lm-eval scores, no end of sequence.

    Rows of more than `max_length` tokens are left out, as they would lose their answer or the text it is about.

    Raises:
        UsageError: every row is longer.
        DataError: a row has no label.
    """
    pairs = [template.pair(row) for row in rows]
    contexts = tokenizer([context for context, _ in pairs], verbose=False)["input_ids"]
    wholes = tokenizer([context + answer for context, answer in pairs], verbose=False)["input_ids"]
    examples = [
        Example(ids, [IGNORED] * len(context) + ids[len(context) :])
        for context, ids in zip(contexts, wholes, strict=True)
        if len(ids) <= max_length
    ]
    if not examples:
        raise UsageError(f"training text: no labelled row is within {max_length} tokens")
    return examples
