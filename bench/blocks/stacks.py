"""Stacks of equally shaped projections, to be approximated as one tensor: TRAWL's six modes (arXiv 2406.17261, §3).

A stack is X [n, p, q]. MLP slices are gate, up and the transpose of down, so that p counts the block's channels;
attention slices are q, k, v and the transpose of o, so that p counts rows of heads; q is the hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.decomposition import AttentionSet, MlpSet, StackMode
from bench.blocks.groups import blocks_of, shape_of
from bench.errors import MethodError
from bench.factor_shape import Slice
from bench.families import ATTENTION, DOWN, GATE, UP, K, O, Q, V
from bench.shape import Shape

MLP_SETS: dict[MlpSet, tuple[str, ...]] = {"gud": (GATE, UP, DOWN), "ud": (UP, DOWN), "gu": (GATE, UP)}


@dataclass(frozen=True)
class Stack:
    """Projections that are approximated together, as slices [rows, columns].

    A projection with n times as many rows is n slices: slice j takes the j-th of every n heads. One with fewer rows is
    one slice, in which its heads are repeated and scaled so that its norm stays.
    """

    name: str
    rows: int
    columns: int
    slices: tuple[Slice, ...]


def stacks_of(
    shape: Shape,
    mode: StackMode,
    layers: Sequence[int],
    *,
    mlp_set: MlpSet = "gud",
    attention_set: AttentionSet = "split",
    segments: int = 3,
) -> list[tuple[Stack, ...]]:
    """The stacks that `mode` makes of the blocks `layers`, by unit: what is approximated in one trial.

    Modes 1 to 3 stack attention, 4 to 6 MLPs. A unit is all blocks (1, 4), one block (2, 5), or a segment of the blocks
    (3, 6), of which there are `segments` that differ by at most one block.

    Under grouped-query attention, `split` makes one stack of q with o and one of k with v, `kv_group` cuts q and o into
    slices of one query head for each key/value head, and `repeat` repeats the heads of k and v. `faithful` stacks q, k,
    v and o as they are, without a transpose, as the published code does.

    Raises:
        MethodError: the widths of the blocks do not allow it.
    """
    if mode in (2, 5):
        units = [[layer] for layer in layers]
    else:
        parts = min(segments, len(layers)) if mode in (3, 6) else 1
        size, longer = divmod(len(layers), parts)
        ends = [i * size + min(i, longer) for i in range(parts + 1)]
        units = [list(layers[a:b]) for a, b in pairwise(ends)]
    if mode in (1, 2, 3):
        return [_attention_stacks(shape, unit, attention_set) for unit in units]
    return [(_stack(shape, "mlp", unit, MLP_SETS[mlp_set], _equal(shape, unit, "channels")),) for unit in units]


def single_stack(shape: Shape, layer: int, projection: str) -> Stack:
    """One matrix by itself."""
    rows, columns = shape.size(layer, projection)
    return Stack(f"{projection} of block {layer}", rows, columns, (Slice(layer, projection),))


def dims(shape: Shape, stack: Stack) -> tuple[int, int, int]:
    """The size n, p, q of the tensor of `stack`."""
    sizes = [shape.size(piece.layer, piece.projection)[piece.transposed] for piece in stack.slices]
    return sum(max(1, rows // stack.rows) for rows in sizes), stack.rows, stack.columns


def matrices(model: PreTrainedModel, stack: Stack) -> list[nn.Parameter]:
    """The weights [out, in] of the projections of `stack`."""
    blocks = blocks_of(model)
    return [blocks[piece.layer].linear(piece.projection).weight for piece in stack.slices]


def stack(model: PreTrainedModel, stack: Stack) -> torch.Tensor:
    """The tensor of `stack`, [n, rows, columns]; in float64 where heads are repeated, so that `unstack` is exact."""
    weights = [
        weight.detach().T if piece.transposed else weight.detach()
        for piece, weight in zip(stack.slices, matrices(model, stack), strict=True)
    ]
    device = weights[0].device  # a unit may have blocks on several
    return torch.cat([_cut(weight.to(device), stack.rows, shape_of(model).head_dim) for weight in weights])


def unstack(model: PreTrainedModel, stack: Stack, x: torch.Tensor) -> None:
    """Write the slices `x` [n, rows, columns] back into the weights they come from: the inverse of `stack`.

    Raises:
        MethodError: a number does not fit the precision of the weights.
    """
    for piece, weight in zip(stack.slices, matrices(model, stack), strict=True):
        rows = weight.shape[piece.transposed]
        n = max(1, rows // stack.rows)
        part, x = _joined(x[:n], rows, shape_of(model).head_dim), x[n:]
        if not bool(torch.isfinite(part.to(weight.dtype)).all()):
            raise MethodError(f"{stack.name}: the approximation does not fit {weight.dtype}")
        weight.data.copy_(part.T if piece.transposed else part)


def _attention_stacks(shape: Shape, unit: Sequence[int], attention_set: AttentionSet) -> tuple[Stack, ...]:
    queries = _equal(shape, unit, "heads") * shape.head_dim
    keys = _equal(shape, unit, "kv_heads") * shape.head_dim
    if attention_set == "split":
        return (
            _stack(shape, "query and output", unit, (Q, O), queries),
            _stack(shape, "key and value", unit, (K, V), keys),
        )
    if attention_set == "faithful" and not queries == keys == shape.hidden:
        raise MethodError(
            f"attention_set: 'faithful' needs square matrices, and q has {queries} rows, k {keys}, of {shape.hidden} "
            "columns; use split, kv_group or repeat"
        )
    rows = keys if attention_set == "kv_group" else queries
    transposed = () if attention_set == "faithful" else (O,)
    return (_stack(shape, "attention", unit, ATTENTION, rows, transposed),)


def _stack(
    shape: Shape,
    what: str,
    unit: Sequence[int],
    projections: Iterable[str],
    rows: int,
    transposed: Iterable[str] = (O, DOWN),
) -> Stack:
    slices = tuple(Slice(layer, projection, projection in transposed) for layer in unit for projection in projections)
    where = f"block {unit[0]}" if len(unit) == 1 else f"blocks {unit[0]} to {unit[-1]}"
    return Stack(f"{what} of {where}", rows, shape.hidden, slices)


def _equal(shape: Shape, unit: Sequence[int], width: str) -> int:
    """The width that the blocks of `unit` have in common."""
    found: dict[int, int] = {getattr(shape.blocks[layer], width): layer for layer in reversed(unit)}
    if len(found) > 1:
        (a, i), (b, j) = sorted(found.items(), key=lambda item: item[1])[:2]
        raise MethodError(
            f"blocks {i} and {j} have {a} and {b} {width.replace('_', ' ')}, and only equal widths can be stacked; "
            "use a mode that takes one block at a time (2 or 5)"
        )
    return next(iter(found))


def _cut(weight: torch.Tensor, rows: int, head_dim: int) -> torch.Tensor:
    """The slices [n, rows, columns] of a weight [n·rows, columns], or the one of a weight with fewer rows."""
    have, columns = weight.shape
    if have == rows:
        return weight[None]
    heads = weight.view(-1, head_dim, columns)
    if have > rows:
        n = have // rows
        return heads.unflatten(0, (-1, n)).transpose(0, 1).reshape(n, rows, columns)
    times = rows // have
    return heads.double().repeat_interleave(times, 0).reshape(1, rows, columns) * float(times) ** -0.5


def _joined(slices: torch.Tensor, rows: int, head_dim: int) -> torch.Tensor:
    """The weight [rows, columns] of its slices; repeated heads are averaged."""
    n, have, columns = slices.shape
    if have == rows:
        return slices[0]
    heads = slices.view(n, -1, head_dim, columns)
    if have < rows:
        return heads.transpose(0, 1).reshape(rows, columns)
    times = have // rows
    return heads.view(-1, times, head_dim, columns).mean(1).reshape(rows, columns) * float(times) ** 0.5
