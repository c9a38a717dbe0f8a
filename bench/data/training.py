"""The text that training methods and recoveries learn from, as examples: what a file of the pack holds decides how."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.data.glue import labelled_examples
from bench.data.instructions import instruction_examples
from bench.data.pack import Pack
from bench.data.texts import INSTRUCTION, documents, is_instructions, template_for, within
from bench.errors import UsageError
from bench.method import IGNORED, Example

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bench.suite import TextSource


def training_examples(
    source: TextSource, tokenizer: PreTrainedTokenizerBase, max_length: int, prefix: str = ""
) -> list[Example]:
    """Rows of `source` as training examples of at most `max_length` tokens.

    Instructions (columns instruction, input, output) and GLUE's labelled rows train the answer alone, any other text
    each of its tokens; so does a column that the source names. The text `prefix` stands before each example, on top
    of `max_length` and without a loss.

    Raises:
        UsageError: no row is long enough, or leaves room for an answer.
        DataError: the file is missing or damaged, has no such column, or a row of GLUE no label.
    """
    pack, template = Pack.default(), template_for(source)
    if template is not None:
        labelled = within(pack.rows(source.data, template.columns), source)
        examples = labelled_examples(labelled, template, tokenizer, max_length)
    elif is_instructions(source):
        rows = pack.rows(source.data, INSTRUCTION)
        examples = instruction_examples(within(rows, source), tokenizer, max_length)
    else:
        encoded = (tokenizer(text, verbose=False)["input_ids"][:max_length] for text in documents(source))
        examples = [Example(ids, list(ids)) for ids in encoded if len(ids) > 1]
    if not examples:
        raise UsageError(f"training text: {source.data}: no row of '{source.column}' has two tokens or more")
    return _after(prefix, examples, tokenizer) if prefix else examples


def token_examples(ids: torch.Tensor, max_length: int) -> list[Example]:
    """The caller's own token ids, int64 [N, T], as plain language-modelling examples."""
    return [Example(row, list(row)) for row in ids[:, :max_length].tolist()]


def _after(prefix: str, examples: list[Example], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    ids: list[int] = tokenizer(prefix, verbose=False)["input_ids"]
    return [
        replace(example, input_ids=ids + example.input_ids, labels=[IGNORED] * len(ids) + example.labels)
        for example in examples
    ]
