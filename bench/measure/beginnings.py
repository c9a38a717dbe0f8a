"""The long beginnings that many texts of a task have in common, such as the examples of a few-shot task.

They are found in the tokens alone. The keys and values of one are computed once, and all texts that begin so read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from transformers.cache_utils import Cache, DynamicLayer

LEAST_TOKENS, LEAST_READERS = 64, 4
"""Shorter beginnings, and those of fewer different texts, are worth no forward pass of their own."""


@dataclass(frozen=True)
class Beginning:
    """Tokens, and the numbers of the sequences that begin with them."""

    tokens: list[int]
    readers: list[int]


@dataclass
class _Run:
    """Sorted texts from number `start` on, whose first `length` tokens are the same; `found` are ranges in it."""

    length: int
    start: int
    saved: int = 0
    found: list[tuple[int, int, int]] = field(default_factory=list)

    def take(self, other: _Run) -> None:
        self.saved += other.saved
        self.found += other.found

    def close(self, end: int) -> None:
        """Put the whole run in the place of the ranges within, if that saves as many tokens."""
        readers = end - self.start
        saved = self.length * (readers - 1)
        if self.length >= LEAST_TOKENS and readers >= LEAST_READERS and saved >= self.saved:
            self.saved, self.found = saved, [(self.start, end, self.length)]


def beginnings(texts: Sequence[list[int]], most: int) -> list[Beginning]:
    """Common beginnings, at most one to each of `texts`, which together save the most tokens.

    A longer one is cut to `most` tokens. Equal texts count as one reader.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, text in enumerate(texts):
        alike.setdefault(tuple(text), []).append(number)
    ordered = sorted(alike)
    runs = [_Run(0, 0)]
    for end, common in enumerate([*(shared(a, b) for a, b in pairwise(ordered)), 0], 1):
        inner = _Run(common, end - 1)
        while runs[-1].length > common:
            closed = runs.pop()
            closed.close(end)
            if runs[-1].length >= common:
                runs[-1].take(closed)
            else:
                inner.start = closed.start
                inner.take(closed)
        if runs[-1].length < common:
            runs.append(inner)
    return [
        Beginning(list(ordered[start][: min(length, most)]), [n for text in ordered[start:end] for n in alike[text]])
        for start, end, length in runs[0].found
        if min(length, most) >= LEAST_TOKENS
    ]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that both begin with."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


class _Layer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of the first pass, [1, heads, tokens, head]; later passes read them and change nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            super().update(key_states, value_states)
            return self.keys, self.values
        rows = len(key_states)
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def empty_cache() -> Cache:
    """For a decoder's `past_key_values`: keeps what the first pass leaves in it, and shows it to every row after it."""
    return Cache(layer_class_to_replicate=_Layer)
