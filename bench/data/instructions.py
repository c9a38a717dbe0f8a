"""Training examples from instructions with their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.method import IGNORED, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREAMBLE = "You are given a task to carry out. Write an answer that does what it asks."


def prompt_of(row: Mapping[str, Any]) -> str:
    """The prompt of an instruction row: a preamble, then the headed sections Instruction, Input (if any), Response.

    Source: the layout of Stanford Alpaca's prompt; the wording is our own.
    """
    sections = [PREAMBLE, f"### Instruction:\n{row['instruction']}"]
    if row.get("input"):
        sections.append(f"### Input:\n{row['input']}")
    return "\n\n".join([*sections, "### Response:\n"])


def instruction_examples(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Rows with `instruction`, `input` and `output` as examples whose loss is taken on the answer alone.

    Source: LLM-Pruner's published post-training code: cut at `max_length` tokens, the end-of-sequence token appended
    where there is room. Rows whose prompt leaves no room for an answer are left out.

    Raises:
        UsageError: no row has room for an answer.
    """
    pairs = ((prompt_of(row), row["output"]) for row in rows)
    return answered(pairs, tokenizer, max_length, "instruction")


def answered(
    pairs: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, max_length: int, what: str
) -> list[Example]:
    """(prompt, answer) pairs as examples whose loss is taken on the answer and the end-of-sequence token alone.

    Raises:
        UsageError: no pair has room for an answer; `what` is what the sentence calls them.
    """
    examples = []
    for prompt, answer in pairs:
        ids = _encode(prompt + answer, tokenizer, max_length)
        masked = _common_prefix(tokenizer(prompt, verbose=False)["input_ids"], ids)
        if masked < len(ids):
            examples.append(Example(ids, [IGNORED] * masked + ids[masked:]))
    if not examples:
        raise UsageError(f"training text: no {what} has room for an answer within {max_length} tokens")
    return examples


def _encode(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"][:max_length]
    end = tokenizer.eos_token_id
    if end is not None and len(ids) < max_length and ids[-1:] != [end]:
        ids.append(end)
    return ids


def _common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading tokens two encodings share (a token may span the end of the prompt)."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
