"""From text to token ids, with the BOS that a protocol asks for."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from bench.errors import UsageError


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, bos: bool | None = None) -> list[int]:
    """The ids of `text`: as the tokenizer makes them by itself, or with (True) or without (False) a BOS before them.

    With and without, there is no other special token than those that the text itself spells; a text that spells a BOS
    at its start gets no second one.

    Raises:
        UsageError: a BOS is wanted, and the tokenizer has none.
    """
    if bos is None:
        own: list[int] = tokenizer(text, verbose=False)["input_ids"]
        return own
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    first = tokenizer.bos_token_id
    if bos and first is None:
        raise UsageError("the tokenizer has no BOS, which +bos asks for")
    return [first, *ids] if bos and ids[:1] != [first] else ids
