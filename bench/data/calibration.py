"""Calibration text: windows of token ids out of random documents of a text column, or of random token ids."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def sample_windows(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, n: int, seq_len: int, seed: int
) -> torch.Tensor:
    """`n` windows of `seq_len` token ids, each a random contiguous piece of another random document.

    Source: LLM-Pruner's sampler (its published code): a document is drawn again while it was drawn before or is
    shorter than `seq_len` tokens, special tokens of the tokenizer included.

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


def random_windows(vocab: int, n: int, seq_len: int, seed: int) -> torch.Tensor:
    """`n` windows of `seq_len` token ids, int64 [n, seq_len], uniform in 0..vocab-1."""
    import torch

    return torch.randint(vocab, (n, seq_len), generator=torch.Generator().manual_seed(seed))
