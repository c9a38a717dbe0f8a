"""Importance of groups from weights and gradients (LLM-Pruner, arXiv 2305.11627, §3.2).

For a weight w with gradient g of the loss and diagonal Fisher F, one row or column r of a member matrix is worth

    vectorize     |sum of w·g over r|                 l1    sum of |w|
    param_first   sum of |w·g|                        l2    sum of w², no root
    param_second  sum of |w²·F|
    param_mix     sum of |w·g - w²·F/2|

and a group what its members' vectors are worth together. All of it in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.gradients import Take, backward, each_row, in_turn, parts, taking
from bench.blocks.groups import (
    Block,
    Member,
    Scores,
    Shape,
    attention_members,
    blocks_of,
    hidden_members,
    mlp_members,
    shape_of,
)
from bench.blocks.settings import ROWS_BACKWARD, GqaFold, Importance, Reduction
from bench.errors import MethodError
from bench.method import Progress

Fisher = Mapping[nn.Parameter, torch.Tensor]

NEED_GRADIENT = ("vectorize", "param_first", "param_mix")
NEED_FISHER = ("param_second", "param_mix")


def score_groups(
    model: PreTrainedModel,
    layers: Iterable[int],
    importance: Importance,
    reduction: Reduction,
    ids: torch.Tensor | None = None,
    *,
    gqa_fold: GqaFold = "contiguous",
    progress: Progress = lambda what, done, total: None,
) -> Scores:
    """Scores of the attention and MLP groups of `layers`.

    `ids`, int64 [n, seq_len], is the calibration batch; l1 and l2 need none. With `prod` the scores are logarithms
    (the same ranking, without underflow). No gradient is left behind.

    Raises:
        MethodError: a score is not a number.
    """
    blocks, members = members_of(model, layers)
    rows = row_scores(model, members, importance, ids, progress)
    return reduced(blocks, shape_of(model), rows, partial(combine, reduction=reduction), gqa_fold)


def score_hidden(
    model: PreTrainedModel, importance: Importance, reduction: Reduction, ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Scores of the hidden dimensions, float32 [hidden] (LLM-Pruner's channel mode). As `score_groups` otherwise."""
    rows = row_scores(model, hidden_members(model), importance, ids)
    scores = combine([row.to(model.device) for row in rows], reduction)
    _check_numbers(scores, "scores of the hidden dimensions")
    return scores


def random_scores(shape: Shape, layers: Iterable[int], generator: torch.Generator) -> Scores:
    """Random scores: uniform in [0, 1) for each row, summed over the rows of a head."""
    attention, mlp = {}, {}
    for layer in layers:
        block = shape.blocks[layer]
        attention[layer] = torch.rand(block.kv_heads, shape.head_dim, generator=generator).sum(1)
        mlp[layer] = torch.rand(block.channels, generator=generator)
    return Scores(attention, mlp)


def row_scores(
    model: PreTrainedModel,
    members: Sequence[Member],
    importance: Importance,
    ids: torch.Tensor | None,
    progress: Progress = lambda what, done, total: None,
) -> list[torch.Tensor]:
    """What each row (or column) of each member is worth, float32 [rows].

    g is the gradient of the mean negative log-likelihood of the batch `ids`, F the mean over its rows of the squared
    gradient of that row's own loss. Gradients are reduced as they come; what has to be summed first is summed for a few
    layers at a time.
    """
    rows = [empty_rows(member) for member in members]
    if importance not in NEED_GRADIENT and importance not in NEED_FISHER:
        for row, member in zip(rows, members, strict=True):
            row.copy_(saliency(member, importance))
        return rows
    batch = _needed(ids, importance)
    owner = {member.weight: i for i, member in enumerate(members)}

    def reduce(weight: nn.Parameter, gradient: torch.Tensor, fisher: Fisher = MappingProxyType({})) -> None:
        i = owner[weight]
        rows[i].copy_(saliency(members[i], importance, gradient, fisher.get(weight)))

    def add_square(weight: nn.Parameter, gradient: torch.Tensor) -> None:
        i, share = owner[weight], gradient.float().square().div_(len(batch))
        rows[i] += saliency(members[i], importance, fisher=share)

    if importance == "param_second":
        with taking(model, list(owner), add_square):
            each_row(model, batch, progress)
    elif importance == "param_mix":
        turns = list(parts(model, list(owner), each=4))
        for turn, part in enumerate(turns):
            progress_here = in_turn(progress, turn, len(turns))
            whole_gradient(model, part, batch, partial(reduce, fisher=_fisher(model, part, batch, progress_here)))
    else:
        whole_gradient(model, list(owner), batch, reduce)
    return rows


def whole_gradient(model: PreTrainedModel, weights: Sequence[nn.Parameter], ids: torch.Tensor, take: Take) -> None:
    """Hand the gradient of the mean loss of the batch `ids` to `take`, weight by weight."""
    chunks = ids.split(ROWS_BACKWARD)
    if len(chunks) == 1:
        with taking(model, weights, take):
            backward(model, ids)
        return
    for part in parts(model, weights, each=4):
        for weight, gradient in _summed(model, part, chunks).items():
            take(weight, gradient)


def _summed(
    model: PreTrainedModel, weights: Sequence[nn.Parameter], chunks: Sequence[torch.Tensor]
) -> dict[nn.Parameter, torch.Tensor]:
    """The gradient of the mean loss of a batch in chunks, float32."""
    sums = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in weights}
    with taking(model, weights, lambda weight, gradient: sums[weight].add_(gradient)):
        for chunk in chunks:
            backward(model, chunk, len(chunk) / sum(map(len, chunks)))
    return sums


def saliency(
    member: Member, importance: Importance, gradient: torch.Tensor | None = None, fisher: torch.Tensor | None = None
) -> torch.Tensor:
    """What each row (or column) of `member` is worth, float32 [rows]; for a vector of weights each entry is a row.

    `gradient` and `fisher` are of the weight's shape, given where `importance` uses them.
    """
    weight, dim = member.weight.detach(), member.dim
    if importance == "l1":
        return _matrix(weight).abs().sum(dim)
    if importance == "l2":
        return _matrix(weight).square().sum(dim)
    if importance == "param_second":
        assert fisher is not None
        return second_order(weight, fisher).sum(dim)
    assert gradient is not None
    first = first_order(member, gradient)
    if importance == "vectorize":
        return first.sum(dim).abs()
    if importance == "param_mix":
        assert fisher is not None
        first -= second_order(weight, fisher, 0.5)
    return first.abs_().sum(dim)


def empty_rows(member: Member) -> torch.Tensor:
    """Zeros for what the rows of `member` are worth, float32 [rows].

    Make them before a backward pass: small tensors that stay, between large ones that are freed, keep an allocator from
    using that memory again.
    """
    weight = member.weight
    return torch.zeros(weight.shape[1 - member.dim] if weight.dim() == 2 else len(weight), device=weight.device)


def first_order(member: Member, gradient: torch.Tensor) -> torch.Tensor:
    """w·g of each weight, float32 [rows, columns] as the weight lies."""
    weight = member.weight.detach().to(torch.float32, copy=True)
    return _matrix(weight).mul_(_matrix(gradient))


def second_order(weight: torch.Tensor, fisher: torch.Tensor, share: float = 1.0) -> torch.Tensor:
    """`share`·w²·F of each weight, in the same form."""
    return _matrix(weight).square().mul_(share).mul_(_matrix(fisher))


def fold(vector: torch.Tensor, length: int, head_dim: int, how: GqaFold) -> torch.Tensor:
    """Sum the rows of the query heads that share a key/value head, so that [heads·head_dim] becomes `length`.

    `contiguous` adds the heads c·n_rep … that read key/value head c; `strided` adds c, c + kv_heads, … as the published
    code does, for comparison with it.
    """
    if how == "strided":
        return vector.view(-1, length).sum(0)
    return vector.view(length // head_dim, -1, head_dim).sum(1).flatten()


def combine(members: Sequence[torch.Tensor], reduction: Reduction, size: int = 1) -> torch.Tensor:
    """The members' vectors, each [n·size], as one score per group of `size` rows, [n].

    Members are reduced row by row, then the rows of a group are summed. `prod` gives logarithms.
    """
    stacked = torch.stack(list(members))
    if reduction == "prod":
        return stacked.log().sum(0).view(-1, size).logsumexp(1)
    if reduction == "max":
        rows = stacked.amax(0)
    elif reduction in ("first", "last"):
        rows = stacked[0 if reduction == "first" else -1]
    else:
        rows = stacked.mean(0) if reduction == "mean" else stacked.sum(0)
    return rows.view(-1, size).sum(1)


def _fisher(
    model: PreTrainedModel, weights: Sequence[nn.Parameter], ids: torch.Tensor, progress: Progress
) -> dict[nn.Parameter, torch.Tensor]:
    fisher = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in weights}

    def add(weight: nn.Parameter, gradient: torch.Tensor) -> None:
        fisher[weight] += gradient.float().square().div_(len(ids))

    with taking(model, weights, add):
        each_row(model, ids, progress)
    return fisher


def members_of(model: PreTrainedModel, layers: Iterable[int]) -> tuple[list[Block], list[Member]]:
    """The blocks of `layers`, and the members of their groups, block by block."""
    wanted = set(layers)
    blocks = [block for block in blocks_of(model) if block.index in wanted]
    return blocks, [m for block in blocks for m in (*attention_members(block), *mlp_members(block))]


def reduced(
    blocks: Sequence[Block],
    shape: Shape,
    rows: Sequence[torch.Tensor],
    together: Callable[..., torch.Tensor],
    gqa_fold: GqaFold = "contiguous",
) -> Scores:
    """Scores of groups from `rows`, what the rows of each member are worth in the order of `members_of`; `together`
    makes them one score per group.

    Raises:
        MethodError: a score is not a number.
    """
    attention, mlp = {}, {}
    values = iter(rows)
    for block in blocks:
        length = shape.blocks[block.index].kv_heads * shape.head_dim
        folded = [fold(next(values), length, shape.head_dim, gqa_fold) for _ in attention_members(block)]
        attention[block.index] = together(folded, size=shape.head_dim)
        mlp[block.index] = together([next(values) for _ in mlp_members(block)], size=1)
    for layer in attention:
        _check_numbers(attention[layer], f"attention scores of layer {layer}")
        _check_numbers(mlp[layer], f"MLP scores of layer {layer}")
    return Scores(attention, mlp)


def _needed(ids: torch.Tensor | None, importance: Importance) -> torch.Tensor:
    if ids is None:
        raise MethodError(f"importance '{importance}' needs calibration text")
    return ids


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """In float32, a vector as one column."""
    return weight.float() if weight.dim() == 2 else weight.float().unsqueeze(1)


def _check_numbers(scores: torch.Tensor, what: str) -> None:
    if not bool((scores < torch.inf).all()):
        raise MethodError(f"{what} are not finite; is the model's loss on the calibration text finite?")
