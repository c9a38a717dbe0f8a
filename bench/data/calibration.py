"""Calibration text: windows of token ids out of random documents, out of the joined text, or of random token ids."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from bench.data.texts import documents
from bench.errors import UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bench.suite import TextSource

JOINT = "\n\n"
"""What stands between the rows of a joined text."""


def sampler_of(source: TextSource, tokenizer: PreTrainedTokenizerBase) -> Callable[[int, int, int], torch.Tensor]:
    """The sampler that `source` names, over its documents: (n, seq_len, seed) to int64 [n, seq_len].

    Raises:
        DataError: the file of the source is missing or damaged, or has no such column.
    """
    texts = cache(partial(documents, source))
    if source.sampler == "documents":
        return lambda n, seq_len, seed: sample_windows(texts(), tokenizer, n, seq_len, seed)
    ids = cache(lambda: tokenizer(JOINT.join(texts()), verbose=False)["input_ids"])
    return lambda n, seq_len, seed: joined_windows(ids(), n, seq_len, seed)


def sample_windows(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, n: int, seq_len: int, seed: int
) -> torch.Tensor:
    """`n` windows of `seq_len` token ids, each a random contiguous piece of another random document.

    Source: LLM-Pruner's sampler (its published code): a document is drawn again while it was drawn before or is
    shorter than `seq_len` tokens, special tokens of the tokenizer included. SparseGPT and Wanda take C4 in the same
    way, but may draw a document twice and leave out those of exactly `seq_len` tokens.

    Returns:
        int64 [n, seq_len].

    Raises:
        UsageError: fewer than `n` documents are long enough.
    """
    import torch

    generator = random.Random(seed)
    drawn: set[int] = set()
    windows: list[list[int]] = []
    while len(windows) < n:
        if len(drawn) == len(texts):
            raise UsageError(
                f"calibration: {n} windows of {seq_len} tokens were asked for, but only {len(windows)} of the "
                f"{len(texts)} documents are that long"
            )
        document = generator.randint(0, len(texts) - 1)
        if document in drawn:
            continue
        drawn.add(document)
        ids = tokenizer(texts[document], verbose=False)["input_ids"]
        if len(ids) >= seq_len:
            start = generator.randint(0, len(ids) - seq_len)
            windows.append(ids[start : start + seq_len])
    return torch.tensor(windows, dtype=torch.int64).reshape(n, seq_len)


def joined_windows(ids: Sequence[int], n: int, seq_len: int, seed: int) -> torch.Tensor:
    """`n` windows of `seq_len` token ids at random places of the joined text `ids`; they may overlap.

    Source: the loaders of SparseGPT and Wanda for WikiText-2 (SliceGPT's is alike): Python's generator with this seed,
    starts from 0 to one before the last possible.

    Returns:
        int64 [n, seq_len].

    Raises:
        UsageError: the text has no more than `seq_len` tokens.
    """
    import torch

    if len(ids) <= seq_len:
        raise UsageError(
            f"calibration: {n} windows of {seq_len} tokens were asked for, but the joined text has {len(ids)} tokens"
        )
    generator = random.Random(seed)
    starts = [generator.randint(0, len(ids) - seq_len - 1) for _ in range(n)]
    return torch.tensor([ids[start : start + seq_len] for start in starts], dtype=torch.int64).reshape(n, seq_len)


def random_windows(vocab: int, n: int, seq_len: int, seed: int) -> torch.Tensor:
    """`n` windows of `seq_len` token ids, int64 [n, seq_len], uniform in 0..vocab-1."""
    import torch

    return torch.randint(vocab, (n, seq_len), generator=torch.Generator().manual_seed(seed))
