"""From text to token ids, with the BOS that a protocol asks for, and back to the bytes of the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from bench.errors import UsageError


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, bos: bool | None = None) -> list[int]:
    """The ids of `text`: as the tokenizer makes them by itself, or with (True) or without (False) a BOS before them.

    With and without, there is no other special token than those that the text itself spells; a text that spells a BOS
    at its start gets no second one.

    Raises:
        UsageError: a BOS is wanted, and the tokenizer has none.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=bos is None, verbose=False)["input_ids"]
    return _begun(tokenizer, ids, bos)


def ids_and_bytes(
    tokenizer: PreTrainedTokenizerBase, text: str, bos: bool | None = None
) -> tuple[list[int], list[int] | None]:
    """`token_ids`, and for each the UTF-8 bytes of `text` from its start to the end of that token.

    The bytes are None where the tokenizer does not say which characters its tokens hold. A character that several
    tokens share belongs to the first, what no token holds to the next.
    """
    if not tokenizer.is_fast:
        return token_ids(tokenizer, text, bos), None
    found = tokenizer(text, add_special_tokens=bos is None, return_offsets_mapping=True, verbose=False)
    ids = _begun(tokenizer, found["input_ids"], bos)
    ends = [end for _, end in found["offset_mapping"]]
    return ids, _bytes_before(text, [0] * (len(ids) - len(ends)) + ends)


def _begun(tokenizer: PreTrainedTokenizerBase, ids: list[int], bos: bool | None) -> list[int]:
    first = tokenizer.bos_token_id
    if bos and first is None:
        raise UsageError("the tokenizer has no BOS, which +bos asks for")
    return [first, *ids] if bos and ids[:1] != [first] else ids


def _bytes_before(text: str, ends: Sequence[int]) -> list[int]:
    """UTF-8 bytes before each of these characters, or before an earlier one in the list that lies further on."""
    code = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
    before = np.concatenate([[0], np.cumsum(sizes)])
    return [int(count) for count in before[np.maximum.accumulate(np.array(ends, dtype=int))]]
