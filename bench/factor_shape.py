"""Low-rank factors in place of projections, counted in closed form: plain integers, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from bench.errors import MethodError
from bench.families import GATE, UP

Size = Callable[[int, str], tuple[int, int]]
"""Rows and columns of the dense weight of a layer's projection."""


@dataclass(frozen=True)
class Slice:
    """A projection as a slice of a stack: its weight [out, in], or `transposed`, [in, out]."""

    layer: int
    projection: str
    transposed: bool = False

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.projection}"


@dataclass(frozen=True)
class FactorShape:
    """Low-rank factors that `slices` share: inner [rows, rank[0]], outer [columns, rank[-1]] and a core for each slice.

    A core is a diagonal where `rank` is one number, and a matrix where it is two. A projection with n times as many
    rows as the factors is n slices: the j-th takes the j-th of every n heads.
    """

    rows: int
    columns: int
    rank: tuple[int, ...]
    slices: tuple[Slice, ...]

    def count(self, piece: Slice, size: Size) -> int:
        """How many slices the projection of `piece` has."""
        return size(piece.layer, piece.projection)[piece.transposed] // self.rows

    def params(self, size: Size) -> int:
        """Stored parameters minus the dense weights they replace (TRAWL, arXiv 2406.17261: CP has R·(n + p + q))."""
        shared = self.rows * self.rank[0] + self.columns * self.rank[-1]
        return shared + sum(
            self.count(s, size) * prod(self.rank) - prod(size(s.layer, s.projection)) for s in self.slices
        )

    def products(self, size: Size) -> int:
        """Multiply-accumulates of one token in the matrix products, minus those of the dense weights.

        The gate and up projections of a block that share factors share the product with `outer`.
        """
        total = 0
        for piece in self.slices:
            n = self.count(piece, size)
            cores = n * prod(self.rank) if len(self.rank) == 2 else 0
            total += self.columns * self.rank[-1] + cores + n * self.rows * self.rank[0]
            total -= prod(size(piece.layer, piece.projection))
        read = {(piece.layer, piece.projection) for piece in self.slices}
        shared = sum(projection == GATE and (layer, UP) in read for layer, projection in read)
        return total - shared * self.columns * self.rank[-1]

    def scalings(self, size: Size) -> int:
        """Multiplications of one token by diagonal cores."""
        return sum(self.count(s, size) * self.rank[0] for s in self.slices) if len(self.rank) == 1 else 0

    def check(self, piece: Slice, out_in: tuple[int, int], head_dim: int, writes: bool) -> None:
        """Check that a projection [out, in] can be the slice `piece`; `writes`: it adds to the hidden state.

        Raises:
            MethodError: its size differs, or it is transposed but does not write to the hidden state.
        """
        if piece.transposed and not writes:
            raise MethodError(f"{piece}: transposed; only a projection that writes to the hidden state can be")
        rows, columns = out_in[::-1] if piece.transposed else out_in
        whole = rows == self.rows or (rows % self.rows == 0 and self.rows % head_dim == 0)
        if not whole or columns != self.columns:
            raise MethodError(
                f"{piece}: [{rows}, {columns}] cannot be cut into slices of the factors' [{self.rows}, {self.columns}]"
            )


def factors_in(entries: Iterable[Mapping[str, Any]] | None) -> tuple[FactorShape, ...]:
    """The factors that the field `factors` of a config.json lists."""
    return tuple(
        FactorShape(f["rows"], f["columns"], tuple(f["rank"]), tuple(Slice(*s) for s in f["slices"]))
        for f in entries or ()
    )
