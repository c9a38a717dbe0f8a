"""The shape of a model, and what is kept of it: plain integers, no torch.

`Shape` counts parameters and multiply-accumulates in closed form, over the table of the model's family; `Kept` names,
in indices of the dense model, what survives a structured pruning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from bench.errors import DataError, MethodError, UsageError
from bench.factor_shape import FactorShape, factors_in
from bench.families import ProjectionName
from bench.family import Axis, Family, default, of_config

T = TypeVar("T")

MOST_LAYERS = 10_000
LAYERS, HEADS, KV_HEADS = "num_hidden_layers", "num_attention_heads", "num_key_value_heads"


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
class Shape:
    """Widths of a decoder, which of its projections have a bias, and which are factored.

    `bottleneck` is the width of the bottleneck (two matrices, two biases) after the MLP of every block; 0 where there
    is none.
    """

    hidden: int
    head_dim: int
    vocab: int
    tied: bool
    blocks: tuple[BlockShape, ...]
    factors: tuple[FactorShape, ...] = ()
    bottleneck: int = 0
    family: Family = field(default_factory=default)
    biased: tuple[ProjectionName, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], where: object = "config.json") -> Shape:
        """The shape that a config.json describes.

        Raises:
            UsageError: an unknown family, a width that is missing or no number, or heads that cannot be divided; the
                sentence begins with `where`.
        """
        family = of_config(config, where)
        hidden = _count(config, "hidden_size", where)
        heads = _count(config, HEADS, where)
        given = family.value(config, "head_dim") is not None
        if not given and hidden % heads:
            raise UsageError(f"{where}: hidden_size: {hidden} is no multiple of {heads} heads, and head_dim is missing")
        return cls(
            hidden=hidden,
            head_dim=_count(config, "head_dim", where, family) if given else hidden // heads,
            vocab=_count(config, "vocab_size", where),
            tied=bool(config.get("tie_word_embeddings", False)),
            blocks=tuple(_widths_in(layer, family, where) for layer in _layers_in(config, where)),
            factors=_parsed(factors_in, config, "factors", where),
            bottleneck=config.get("bottleneck") or 0,
            family=family,
            biased=family.biased(config),
        )

    def width(self, block: BlockShape, axis: Axis) -> int:
        """How many rows or columns of a block's matrices `axis` stands for."""
        if axis is Axis.HIDDEN:
            return self.hidden
        if axis is Axis.CHANNELS:
            return block.channels
        return self.head_dim * (block.heads if axis is Axis.QUERY else block.kv_heads)

    def size(self, layer: int, projection: str) -> tuple[int, int]:
        """Rows and columns (out, in) of one projection's dense weight."""
        table = self.family.projection(projection)
        return self.width(self.blocks[layer], table.rows), self.width(self.blocks[layer], table.columns)

    def block_params(self) -> int:
        """Parameters of the decoder blocks: matrices, biases, norms, bottlenecks and shared factors.

        Linear in every width, so that widths may be scalars with gradients.
        """
        bottleneck = (2 * self.hidden + 1) * self.bottleneck + (self.hidden if self.bottleneck else 0)
        own = sum(self._matrices(block) + self._vectors(block) + bottleneck for block in self.blocks)
        return own + sum(f.params(self.size) for f in self.factors)

    def vector_params(self) -> int:
        """How many of the blocks' parameters are norms and biases."""
        vectors = 2 * len(self.blocks) * self.hidden
        return vectors + sum(self._vectors(block) - 2 * self.hidden for block in self.blocks)

    def channel_params(self) -> int:
        """Parameters of one MLP channel: its row or column of each projection, and its biases."""
        biases = sum(self.family.projection(name).rows is Axis.CHANNELS for name in self.biased)
        return _other_sides(self.family)[Axis.CHANNELS] * self.hidden + biases

    def params(self) -> int:
        """All parameters: blocks, embedding, head (once where tied) and the final norm."""
        return self.block_params() + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    def cache_bytes(self, width: int) -> int:
        """Bytes of the keys and values of one token, in numbers of `width` bytes."""
        return 2 * width * self.head_dim * sum(block.kv_heads for block in self.blocks)

    def macs(self, seq_len: int = 64) -> int:
        """Multiply-accumulates of one sequence of `seq_len` tokens.

        Source: the closed form behind Table 3 of LLM-Pruner (arXiv 2305.11627; ptflops counts): projections with their
        biases, attention with softmax, rotary embedding, norms, SiLU, head. Key/value heads are counted as they are
        (GQA).
        """
        t, d, h = seq_len, self.hidden, self.head_dim
        total = t * d * self.vocab + 2 * t * d
        normed = {self.family.projection(name).rows for name in self.family.head_norms}
        for b in self.blocks:
            biases = sum(self.width(b, self.family.projection(name).rows) for name in self.biased)
            attention = b.heads * (2 * t * t * h + t * t) + 2 * t * h * (b.heads + b.kv_heads)
            norms = 2 * t * (2 * d + sum(self.width(b, axis) for axis in normed))
            bottleneck = 2 * t * d * self.bottleneck + t * self.bottleneck
            total += t * (self._matrices(b) + biases + b.channels) + attention + norms + bottleneck
        return total + t * sum(f.products(self.size) + f.scalings(self.size) for f in self.factors)

    def matmul_macs(self, seq_len: int = 64) -> int:
        """The part of `macs` that is matrix products: what torch's FlopCounterMode counts, halved."""
        t, d = seq_len, self.hidden
        attention = 2 * t * t * self.head_dim * sum(block.heads for block in self.blocks)
        bottlenecks = 2 * t * d * self.bottleneck * len(self.blocks)
        factors = t * sum(f.products(self.size) for f in self.factors)
        matrices = t * sum(self._matrices(block) for block in self.blocks)
        return matrices + attention + bottlenecks + t * d * self.vocab + factors

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
                if not 0 <= piece.layer < len(self.blocks):
                    raise MethodError(f"{piece}: the model has {len(self.blocks)} blocks")
                if (n := times[piece.layer, piece.projection]) > 1:
                    raise MethodError(f"{piece}: factored {n} times; a projection has one place in one set of factors")
                writes = self.family.projection(piece.projection).writes
                f.check(piece, self.size(piece.layer, piece.projection), self.head_dim, writes)
        return after

    def keep_all(self) -> Kept:
        """The `Kept` that removes nothing."""
        return Kept({i: BlockKept(tuple(range(b.heads)), tuple(range(b.channels))) for i, b in enumerate(self.blocks)})

    def after(self, kept: Kept) -> Shape:
        """The shape that is left of the model.

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

    def _matrices(self, block: BlockShape) -> int:
        """Numbers in the dense projections of a block, each of which has the hidden dimensions on one side."""
        sides = _other_sides(self.family)
        heads = sides[Axis.QUERY] * block.heads + sides[Axis.KV] * block.kv_heads
        return self.hidden * self.head_dim * heads + sides[Axis.CHANNELS] * self.hidden * block.channels

    def _vectors(self, block: BlockShape) -> int:
        """Numbers in the norms and biases of a block."""
        biases = sum(self.width(block, self.family.projection(name).rows) for name in self.biased)
        return 2 * self.hidden + len(self.family.head_norms) * self.head_dim + biases

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


@cache
def _other_sides(family: Family) -> Counter[Axis]:
    """How many matrices of a block have each axis on the side that is not the hidden dimensions."""
    return Counter(p.columns if p.writes else p.rows for p in family.projections)


def _check_indices(kept: tuple[int, ...], size: int, what: str) -> None:
    if not kept:
        raise MethodError(f"none of the {what} is kept; at least one must be")
    if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= size:
        raise MethodError(f"kept {what} must be ascending, distinct and within 0..{size - 1}")


def _layers_in(config: Mapping[str, Any], where: object) -> list[Mapping[str, Any]]:
    """The fields of each layer."""
    count = _count(config, LAYERS, where)
    if count > MOST_LAYERS:
        raise DataError(f"{where}: {LAYERS}: {count} is more than {MOST_LAYERS}")
    own = _parsed(_by_layer, config, "per_layer_config", where)
    return [{**config, **own.get(i, {})} for i in range(count)]


def _by_layer(entries: Mapping[str, Mapping[str, Any]] | None) -> dict[int, dict[str, Any]]:
    return {int(i): dict(changes) for i, changes in (entries or {}).items()}


def _parsed(parse: Callable[[Any], T], config: Mapping[str, Any], name: str, where: object) -> T:
    try:
        return parse(config.get(name))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {name}: not as Leanboard writes it ({error})") from error


def _widths_in(layer: Mapping[str, Any], family: Family, where: object) -> BlockShape:
    heads = _count(layer, HEADS, where)
    kv_heads = heads if family.value(layer, KV_HEADS) is None else _count(layer, KV_HEADS, where, family)
    if heads % kv_heads:
        raise UsageError(f"{where}: {KV_HEADS}: {heads} query heads are not a multiple of {kv_heads} key/value heads")
    return BlockShape(heads, kv_heads, _count(layer, "intermediate_size", where))


def _count(config: Mapping[str, Any], name: str, where: object, family: Family | None = None) -> int:
    value = config.get(name) if family is None else family.value(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{where}: {name}: missing or not a positive number")
    return value
