"""Token sequences with their common beginnings stored once, and batches of such tries.

Sequences are taken in lexicographic order, in which those that share a beginning are neighbours, whichever document
they are from. A trie's nodes then lie in the order of a depth-first walk: the descendants of a node follow it without a
gap, so that one number per node, where they end, gives which tokens may attend to which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

ATTENTION = 2048
"""Tokens to attend to that cost about as much as one more token (SmolLM2-135M on a CPU; larger models: more)."""
PADDING = 32
"""A batch is closed before its padding takes more than this part of the budget: about what a further batch costs."""


@dataclass
class Trie:
    """Sequences of tokens as one tree; `depth`, the position of a token in its sequence, and `end` are by node.

    The descendants of node i are the nodes i + 1 ... end[i] - 1. `paths` gives the nodes of each sequence.
    """

    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    paths: dict[int, list[int]] = field(default_factory=dict)
    _path: list[int] = field(default_factory=list)

    def add(self, index: int, sequence: list[int], shared: int) -> None:
        """Add sequence number `index`, which shares its first `shared` tokens with the one added last."""
        first, size = len(self.tokens), len(self.tokens) + len(sequence) - shared
        self.tokens += sequence[shared:]
        self.depth += range(shared, len(sequence))
        self.end += [size] * (size - first)
        self._path = [*self._path[:shared], *range(first, size)]
        for node in self._path:
            self.end[node] = size
        self.paths[index] = self._path

    def takes(self, length: int, shared: int) -> bool:
        """Whether a sequence with `shared` tokens in common costs less here than in a trie of its own."""
        size, new = len(self.tokens), length - shared
        return ATTENTION * shared + length**2 >= (size + new) ** 2 - size**2

    @property
    def branches(self) -> bool:
        """Whether some token is not the parent of the next."""
        return any(end < len(self.tokens) for end in self.end)


@dataclass(frozen=True)
class Batch:
    """Tries as rows, padded on the right; every tensor is int64 [tries, nodes of the largest]."""

    tries: Sequence[Trie]
    tokens: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor

    @classmethod
    def of(cls, tries: Sequence[Trie], device: torch.device) -> Batch:
        width = max(len(trie.tokens) for trie in tries)

        def padded(rows: list[list[int]], value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], True, padding_value=value).to(device)

        return cls(
            tries,
            padded([trie.tokens for trie in tries], 0),
            padded([trie.depth for trie in tries], 0),
            padded([trie.end for trie in tries], width),  # padding sees padding; nothing else does
        )

    @property
    def owners(self) -> list[int]:
        """The numbers of the sequences in the tries."""
        return [owner for trie in self.tries for owner in trie.paths]

    def attention(self, dtype: torch.dtype, window: int | None = None) -> dict[str, torch.Tensor]:
        """The decoder's arguments for masks and positions; none where no trie branches.

        The mask, [tries, 1, nodes, nodes], is added to attention scores: 0 for a token's ancestors and for itself. With
        a `window`, a token attends to the last so many of them, itself included.
        """
        if not any(trie.branches for trie in self.tries):
            return {}
        node = torch.arange(self.end.shape[1], device=self.end.device)
        ancestor = (node <= node[:, None]) & (node[:, None] < self.end[:, None, :])
        if window is not None:
            ancestor &= self.depth[:, :, None] - self.depth[:, None, :] < window
        mask = torch.full(ancestor.shape, torch.finfo(dtype).min, dtype=dtype, device=ancestor.device)
        return {"attention_mask": mask.masked_fill_(ancestor, 0)[:, None], "position_ids": self.depth}


def build_tries(sequences: Sequence[list[int]]) -> list[Trie]:
    """Every sequence (not empty) in one of the tries, under its number."""
    tries: list[Trie] = []
    last: list[int] = []
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[index]
        shared = _shared(last, sequence)
        if not shared or not tries[-1].takes(len(sequence), shared):
            tries.append(Trie())
            shared = 0
        tries[-1].add(index, sequence, shared)
        last = sequence
    return tries


def batches(tries: Sequence[Trie], budget: int, device: torch.device) -> Iterator[Batch]:
    """Tries of similar size together, the largest first: up to `budget` tokens, of which a small share is padding."""
    left = sorted(tries, key=lambda trie: -len(trie.tokens))
    while left:
        width = len(left[0].tokens)
        count, padding = 0, 0
        for trie in left[: max(1, budget // width)]:
            padding += width - len(trie.tokens)
            if padding > budget // PADDING:
                break
            count += 1
        yield Batch.of(left[:count], device)
        left = left[count:]


def _shared(one: list[int], other: list[int]) -> int:
    """The number of tokens that both begin with."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
