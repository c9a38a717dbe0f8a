"""Token sequences with their common beginnings stored once, and batches of such tries.

Sequences are taken in lexicographic order, in which those that share a beginning are neighbours, whichever document
they are from. A trie's nodes then lie in the order of a depth-first walk: the descendants of a node follow it without a
gap, so that one number per node, where they end, gives which tokens may attend to which.

Sequences may go on from a beginning whose keys and values are known; what follows it is then a forest in one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from bench.measure.beginnings import Beginning, shared

ATTENTION = 2048
"""Tokens to attend to that cost about as much as one more token (SmolLM2-135M on a CPU; larger models: more)."""
COPYING = 64
"""The same for one token of a beginning, whose keys and values are copied for every row of a batch."""
READ = 4
"""Tokens of beginnings, all copies counted, to those of the budget that a batch may read: what bounds its memory."""
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

    def join(self, other: Trie) -> None:
        """Add another, whose tokens and these do not see each other."""
        size = len(self.tokens)
        self.tokens += other.tokens
        self.depth += other.depth
        self.end += [size + end for end in other.end]
        self.paths |= {index: [size + node for node in path] for index, path in other.paths.items()}

    @property
    def branches(self) -> bool:
        """Whether some token is not the parent of the next."""
        return any(end < len(self.tokens) for end in self.end)


@dataclass(frozen=True)
class Batch:
    """Tries as rows, padded on the right; every tensor is int64 [tries, nodes of the largest].

    The `beginning`, if there is one, is that of all sequences; the tries hold what follows it.
    """

    tries: Sequence[Trie]
    tokens: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor
    beginning: Beginning | None = None

    @classmethod
    def of(cls, tries: Sequence[Trie], device: torch.device, beginning: Beginning | None = None) -> Batch:
        width = max(len(trie.tokens) for trie in tries)

        def padded(rows: list[list[int]], value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], True, padding_value=value).to(device)

        return cls(
            tries,
            padded([trie.tokens for trie in tries], 0),
            padded([trie.depth for trie in tries], 0),
            padded([trie.end for trie in tries], width),  # padding sees padding; nothing else does
            beginning,
        )

    @property
    def owners(self) -> list[int]:
        """The numbers of the sequences in the tries."""
        return [owner for trie in self.tries for owner in trie.paths]

    def attention(self, dtype: torch.dtype, window: int | None = None) -> dict[str, torch.Tensor]:
        """The decoder's arguments for masks and positions; none where no trie branches and nothing lies before.

        The mask, [tries, 1, nodes, tokens of the beginning + nodes], is added to attention scores: 0 for a token's
        ancestors and for itself. With a `window`, a token attends to the last so many of them, itself included.
        """
        before = len(self.beginning.tokens) if self.beginning else 0
        if not before and not any(trie.branches for trie in self.tries):
            return {}
        node = torch.arange(self.end.shape[1], device=self.end.device)
        seen = (node <= node[:, None]) & (node[:, None] < self.end[:, None, :])
        depth = self.depth + before
        if before:
            seen = torch.cat([seen.new_ones(*seen.shape[:2], before), seen], dim=2)
        if window is not None:
            at = torch.cat([torch.arange(before, device=depth.device).expand(len(depth), -1), depth], dim=1)
            seen &= depth[:, :, None] - at[:, None, :] < window
        mask = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=seen.device)
        return {"attention_mask": mask.masked_fill_(seen, 0)[:, None], "position_ids": depth}


def build_tries(sequences: Mapping[int, list[int]]) -> list[Trie]:
    """Every sequence (not empty) in one of the tries, under its number."""
    tries: list[Trie] = []
    last: list[int] = []
    for index in sorted(sequences, key=sequences.__getitem__):
        sequence = sequences[index]
        common = shared(last, sequence)
        if not common or not tries[-1].takes(len(sequence), common):
            tries.append(Trie())
            common = 0
        tries[-1].add(index, sequence, common)
        last = sequence
    return tries


def build_rows(sequences: Mapping[int, list[int]], before: int, budget: int) -> list[Trie]:
    """The same of sequences that go on from `before` tokens: small tries share a row, which reads those once.

    A shared row has at most `budget` tokens, as its mask grows with their square.
    """
    rows: list[Trie] = []
    for trie in sorted(build_tries(sequences), key=lambda trie: -len(trie.tokens)):
        most = min(COPYING * before / (2 * len(trie.tokens)), budget - len(trie.tokens))
        row = next((row for row in rows if len(row.tokens) <= most), None)
        if row is None:
            rows.append(trie)
        else:
            row.join(trie)
    return rows


def batches(
    tries: Sequence[Trie], budget: int, device: torch.device, beginning: Beginning | None = None
) -> Iterator[Batch]:
    """Tries of similar size together, the largest first: up to `budget` tokens, of which a small share is padding.

    Of the `beginning`, a batch reads up to `READ` times the budget.
    """
    left = sorted(tries, key=lambda trie: -len(trie.tokens))
    most = READ * budget // len(beginning.tokens) if beginning else len(left)
    while left:
        width = len(left[0].tokens)
        count, padding = 0, 0
        for trie in left[: max(1, min(budget // width, most))]:
            padding += width - len(trie.tokens)
            if padding > budget // PADDING:
                break
            count += 1
        yield Batch.of(left[:count], device, beginning)
        left = left[count:]
