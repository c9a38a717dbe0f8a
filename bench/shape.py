"""The shape of a LLaMA-family model, and what is kept of it: plain integers, no torch.

`Shape` counts parameters and multiply-accumulates in closed form; `Kept` names, in indices of the dense model, what
survives a structured pruning; `FactorShape` says which projections are the slices of shared low-rank factors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from bench.errors import MethodError


@dataclass(frozen=True)
class BlockShape:
    """Widths of one decoder block: query heads, key/value heads, MLP channels."""

    heads: int
    kv_heads: int
    channels: int


@dataclass(frozen=True)
class BlockKept:
    """What is kept of one block: query heads and MLP channels, ascending, as indices in the dense model."""

    heads: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """What is kept of a model.

    A block that is not in `blocks` is dropped; `hidden` None keeps every hidden dimension.
    """

    blocks: Mapping[int, BlockKept]
    hidden: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Slice:
    """A projection as a slice of a stack: its weight [out, in], or `transposed`, [in, out]."""

    layer: int
    projection: str
    transposed: bool = False


@dataclass(frozen=True)
class FactorShape:
    """Low-rank factors that `slices` share: inner [rows, rank[0]], outer [columns, rank[-1]] and a core for each slice.

    A core has the numbers of a diagonal where `rank` is one number, of a matrix where it is two. A projection with n
    times as many rows as the factors is n slices: the j-th takes the j-th of every n heads.
    """

    rows: int
    columns: int
    rank: tuple[int, ...]
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Shape:
    """Widths of a LLaMA-family model without biases, and the projections of it that are factored.

    `bottleneck` is the width of an adapter (two matrices, two biases) behind the MLP of every block; 0 where there is
    none.
    """

    hidden: int
    head_dim: int
    vocab: int
    tied: bool
    blocks: tuple[BlockShape, ...]
    factors: tuple[FactorShape, ...] = ()
    bottleneck: int = 0

    @classmethod
    def from_config(cls, config: Any) -> Shape:
        """Of a transformers `LlamaConfig` or `LeanLlamaConfig` (which may differ from layer to layer)."""
        layers = [config.per_layer_config[i] for i in range(config.num_hidden_layers)]
        return cls(
            hidden=config.hidden_size,
            head_dim=layers[0].head_dim,
            vocab=config.vocab_size,
            tied=config.tie_word_embeddings,
            blocks=tuple(BlockShape(c.num_attention_heads, c.num_key_value_heads, c.intermediate_size) for c in layers),
            factors=_factors(getattr(config, "factors", None)),
            bottleneck=getattr(config, "bottleneck", None) or 0,
        )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Shape:
        """The same of what a config.json holds."""
        own = config.get("per_layer_config") or {}
        layers = [{**config, **own.get(str(i), {})} for i in range(config["num_hidden_layers"])]
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            blocks=tuple(
                BlockShape(
                    c["num_attention_heads"],
                    c.get("num_key_value_heads") or c["num_attention_heads"],
                    c["intermediate_size"],
                )
                for c in layers
            ),
            factors=_factors(config.get("factors")),
            bottleneck=config.get("bottleneck") or 0,
        )

    def size(self, layer: int, projection: str) -> tuple[int, int]:
        """Rows and columns (out, in) of a projection's dense weight."""
        block, d = self.blocks[layer], self.hidden
        q, kv, channels = block.heads * self.head_dim, block.kv_heads * self.head_dim, block.channels
        return {
            "q_proj": (q, d),
            "k_proj": (kv, d),
            "v_proj": (kv, d),
            "o_proj": (d, q),
            "gate_proj": (channels, d),
            "up_proj": (channels, d),
            "down_proj": (d, channels),
        }[projection]

    def count(self, factors: FactorShape, piece: Slice) -> int:
        """How many slices of `factors` the projection of `piece` is."""
        return self.size(piece.layer, piece.projection)[piece.transposed] // factors.rows

    def block_params(self) -> int:
        """Parameters of the decoder blocks, norms and shared factors included."""
        return sum(self._block_params(b) for b in self.blocks) + sum(self._factor_params(f) for f in self.factors)

    def params(self) -> int:
        """All parameters: blocks, embedding, head (once where tied) and the final norm."""
        return self.block_params() + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    def macs(self, seq_len: int = 64) -> int:
        """Multiply-accumulates of one sequence of `seq_len` tokens.

        Source: the closed form behind Table 3 of LLM-Pruner (arXiv 2305.11627; ptflops counts): projections, attention
        with softmax, rotary embedding, norms, SiLU, head. Key/value heads are counted as they are (GQA).
        """
        t, d, h = seq_len, self.hidden, self.head_dim
        total = t * d * self.vocab + 2 * t * d
        for b in self.blocks:
            projections = 2 * t * d * h * (b.heads + b.kv_heads) + 3 * t * d * b.channels
            attention = b.heads * (2 * t * t * h + t * t)
            rotary = 2 * t * h * (b.heads + b.kv_heads)
            adapter = 2 * t * d * self.bottleneck + t * self.bottleneck
            total += projections + attention + rotary + 4 * t * d + t * b.channels + adapter
        return total + t * sum(self._factor_products(f) + self._factor_scalings(f) for f in self.factors)

    def matmul_macs(self, seq_len: int = 64) -> int:
        """The part of `macs` that is matrix products: what torch's FlopCounterMode counts, halved."""
        t, d, h = seq_len, self.hidden, self.head_dim
        blocks = sum(
            2 * t * d * h * (b.heads + b.kv_heads) + 3 * t * d * b.channels + 2 * t * t * h * b.heads
            for b in self.blocks
        )
        blocks += 2 * t * d * self.bottleneck * len(self.blocks)
        return blocks + t * d * self.vocab + t * sum(self._factor_products(f) for f in self.factors)

    def factored(self, factors: Iterable[FactorShape]) -> Shape:
        """The shape with low-rank factors in place of the projections that they name.

        Raises:
            MethodError: a projection does not exist, is factored twice, or has another size than its factors.
        """
        after = replace(self, factors=(*self.factors, *factors))
        times = Counter((piece.layer, piece.projection) for f in after.factors for piece in f.slices)
        for f in after.factors:
            if min(f.rank) < 1 or not f.slices:
                raise MethodError(f"factors of rank {f.rank} for {len(f.slices)} projections: both must be at least 1")
            for piece in f.slices:
                self._check_slice(f, piece, times[piece.layer, piece.projection])
        return after

    def keep_all(self) -> Kept:
        """The `Kept` that removes nothing."""
        return Kept({i: BlockKept(tuple(range(b.heads)), tuple(range(b.channels))) for i, b in enumerate(self.blocks)})

    def after(self, kept: Kept) -> Shape:
        """The shape that is left.

        Raises:
            MethodError: indices out of range, not ascending, a module left empty, or key/value heads with unequal
                numbers of query heads; the model is factored, or bottlenecks read the hidden dimensions.
        """
        if self.factors:
            raise MethodError("the model has low-rank factors, which cannot be pruned; prune first, then factor")
        hidden = self.hidden
        if kept.hidden is not None:
            if self.bottleneck:
                raise MethodError("the model has bottlenecks, so its hidden dimensions cannot be pruned")
            _check_indices(kept.hidden, self.hidden, "hidden dimensions")
            hidden = len(kept.hidden)
        if not kept.blocks:
            raise MethodError("no decoder block is kept")
        unknown = set(kept.blocks) - set(range(len(self.blocks)))
        if unknown:
            raise MethodError(f"kept blocks {sorted(unknown)} do not exist: the model has {len(self.blocks)}")
        blocks = tuple(self._block_after(i, kept.blocks[i]) for i in sorted(kept.blocks))
        return replace(self, hidden=hidden, blocks=blocks)

    def kept_kv_heads(self, layer: int, heads: tuple[int, ...]) -> tuple[int, ...]:
        """Key/value heads that the kept query heads of `layer` use (contiguous blocks of n_rep query heads)."""
        block = self.blocks[layer]
        return tuple(sorted({head * block.kv_heads // block.heads for head in heads}))

    def removed(self, after: Shape) -> dict[str, float]:
        """Removed fraction by target basis."""
        return {
            "params": 1 - after.params() / self.params(),
            "block_params": 1 - after.block_params() / self.block_params(),
            "macs": 1 - after.macs() / self.macs(),
        }

    def _block_params(self, block: BlockShape) -> int:
        attention = 2 * self.hidden * self.head_dim * (block.heads + block.kv_heads)
        adapter = (2 * self.hidden + 1) * self.bottleneck + (self.hidden if self.bottleneck else 0)
        return attention + 3 * self.hidden * block.channels + 2 * self.hidden + adapter

    def _factor_params(self, f: FactorShape) -> int:
        """What `f` stores, less the dense weights in its place (TRAWL, arXiv 2406.17261: CP has R·(n + p + q))."""
        shared = f.rows * f.rank[0] + f.columns * f.rank[-1]
        return shared + sum(
            self.count(f, piece) * prod(f.rank) - prod(self.size(piece.layer, piece.projection)) for piece in f.slices
        )

    def _factor_products(self, f: FactorShape) -> int:
        """Multiply-accumulates of one token in the matrix products of `f`, less those of the dense weights.

        The gate and up projections of a block that share factors share the product with `outer`.
        """
        total = 0
        for piece in f.slices:
            n = self.count(f, piece)
            cores = n * prod(f.rank) if len(f.rank) == 2 else 0
            total += f.columns * f.rank[-1] + cores + n * f.rows * f.rank[0]
            total -= prod(self.size(piece.layer, piece.projection))
        read = {(piece.layer, piece.projection) for piece in f.slices}
        shared = sum(projection == "gate_proj" and (layer, "up_proj") in read for layer, projection in read)
        return total - shared * f.columns * f.rank[-1]

    def _factor_scalings(self, f: FactorShape) -> int:
        """Multiplications of one token by diagonal cores."""
        return sum(self.count(f, piece) * f.rank[0] for piece in f.slices) if len(f.rank) == 1 else 0

    def _check_slice(self, f: FactorShape, piece: Slice, times: int) -> None:
        where = f"layer {piece.layer}, {piece.projection}"
        if not 0 <= piece.layer < len(self.blocks):
            raise MethodError(f"{where}: the model has {len(self.blocks)} blocks")
        if times > 1:
            raise MethodError(f"{where}: factored {times} times; a projection has one place in one set of factors")
        if piece.transposed and piece.projection not in ("o_proj", "down_proj"):
            raise MethodError(f"{where}: transposed, which only what writes to the hidden state can be")
        out_in = self.size(piece.layer, piece.projection)
        rows, columns = out_in[::-1] if piece.transposed else out_in
        whole = rows == f.rows or (rows % f.rows == 0 and f.rows % self.head_dim == 0)
        if not whole or columns != f.columns:
            raise MethodError(f"{where}: [{rows}, {columns}] are no slices of factors for [{f.rows}, {f.columns}]")

    def _block_after(self, layer: int, kept: BlockKept) -> BlockShape:
        dense = self.blocks[layer]
        _check_indices(kept.heads, dense.heads, f"heads of layer {layer}")
        _check_indices(kept.channels, dense.channels, f"MLP channels of layer {layer}")
        n_rep = dense.heads // dense.kv_heads
        counts = [0] * dense.kv_heads
        for head in kept.heads:
            counts[head // n_rep] += 1
        used = [count for count in counts if count]
        if len(set(used)) != 1:
            raise MethodError(f"layer {layer}: key/value heads are left with {used} query heads; they must be equal")
        return BlockShape(len(kept.heads), len(used), len(kept.channels))


def _factors(entries: Iterable[Mapping[str, Any]] | None) -> tuple[FactorShape, ...]:
    return tuple(
        FactorShape(f["rows"], f["columns"], tuple(f["rank"]), tuple(Slice(*s) for s in f["slices"]))
        for f in entries or ()
    )


def _check_indices(kept: tuple[int, ...], size: int, what: str) -> None:
    if not kept:
        raise MethodError(f"none of the {what} is kept; at least one must be")
    if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= size:
        raise MethodError(f"kept {what} must be ascending, distinct and within 0..{size - 1}")
