"""Importance of groups from weights and gradients (LLM-Pruner, arXiv 2305.11627, §3.2).

For a weight w with gradient g of the loss and diagonal Fisher F, one row or column r of a member matrix is worth

    vectorize     |sum of w·g over r|                 l1    sum of |w|
    param_first   sum of |w·g|                        l2    sum of w², no root
    param_second  sum of |w²·F|
    param_mix     sum of |w·g - w²·F/2|

and a group what its members' vectors are worth together. All of it in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

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
from bench.blocks.settings import GqaFold, Importance, Reduction
from bench.errors import MethodError

Fisher = Mapping[nn.Parameter, torch.Tensor]
Progress = Callable[[str, int, int], None]

NEED_GRADIENT = ("vectorize", "param_first", "param_mix")
NEED_FISHER = ("param_second", "param_mix")
ROWS_AT_ONCE = 16


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
    blocks, weights = members_of(model, layers)
    with derivatives(model, weights, importance, ids, progress) as fisher:
        rows, together = partial(saliency, importance=importance, fisher=fisher), partial(combine, reduction=reduction)
        return reduced(blocks, shape_of(model), rows, together, gqa_fold)


def score_hidden(
    model: PreTrainedModel, importance: Importance, reduction: Reduction, ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Scores of the hidden dimensions, float32 [hidden] (LLM-Pruner's channel mode). As `score_groups` otherwise."""
    members = hidden_members(model)
    with derivatives(model, [member.weight for member in members], importance, ids) as fisher:
        scores = combine([saliency(member, importance, fisher) for member in members], reduction)
    _check_numbers(scores, "scores of the hidden dimensions")
    return scores


def random_scores(shape: Shape, layers: Iterable[int], generator: torch.Generator) -> Scores:
    """Scores of chance: uniform in [0, 1) for each row, summed over the rows of a head."""
    attention, mlp = {}, {}
    for layer in layers:
        block = shape.blocks[layer]
        attention[layer] = torch.rand(block.kv_heads, shape.head_dim, generator=generator).sum(1)
        mlp[layer] = torch.rand(block.channels, generator=generator)
    return Scores(attention, mlp)


@contextmanager
def derivatives(
    model: PreTrainedModel,
    weights: Sequence[nn.Parameter],
    importance: Importance,
    ids: torch.Tensor | None,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[Fisher]:
    """Within the block, `.grad` of each of `weights` holds dL/dw; what is yielded holds F where `importance` uses it.

    L is the mean negative log-likelihood of the batch `ids`, F the mean over rows of the squared gradient of that row's
    own loss. Gradients are freed and `requires_grad` is put back at the end.
    """
    with gradients_of(model, weights):
        fisher: dict[nn.Parameter, torch.Tensor] = {}
        if importance in NEED_FISHER:
            fisher = _fisher(model, weights, _needed(ids, importance), progress)
        if importance in NEED_GRADIENT:
            batch = _needed(ids, importance)
            for chunk in batch.split(ROWS_AT_ONCE):
                _backward(model, chunk, len(chunk) / len(batch))
        yield fisher


@contextmanager
def gradients_of(model: PreTrainedModel, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the block only `weights` require gradients; afterwards all flags are as before and gradients are freed."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.grad = None
            parameter.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


def saliency(member: Member, importance: Importance, fisher: Fisher) -> torch.Tensor:
    """What each row (or column) of `member` is worth, float32 [rows]; for a vector of weights each entry is a row."""
    weight, dim = _matrix(member.weight.detach()), member.dim
    if importance == "l1":
        return weight.abs().sum(dim)
    if importance == "l2":
        return weight.square().sum(dim)
    if importance == "param_second":
        return (weight.square() * _matrix(fisher[member.weight])).sum(dim)
    first = first_order(member)
    if importance == "vectorize":
        return first.sum(dim).abs()
    if importance == "param_mix":
        first -= 0.5 * weight.square() * _matrix(fisher[member.weight])
    return first.abs().sum(dim)


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
    for _ in row_by_row(model, weights, ids, progress):
        for weight, total in fisher.items():
            assert weight.grad is not None
            total += weight.grad.float().square() / len(ids)
    return fisher


def row_by_row(
    model: PreTrainedModel, weights: Sequence[nn.Parameter], ids: torch.Tensor, progress: Progress
) -> Iterator[None]:
    """In each round `.grad` of `weights` is that of the mean loss of one row of `ids` alone; it is freed after it."""
    for done, row in enumerate(ids.split(1), start=1):
        _backward(model, row)
        yield
        for weight in weights:
            weight.grad = None
        progress("calibration", done, len(ids))


def members_of(model: PreTrainedModel, layers: Iterable[int]) -> tuple[list[Block], list[nn.Parameter]]:
    """The blocks of `layers`, and the weights of their groups' members."""
    wanted = set(layers)
    blocks = [block for block in blocks_of(model) if block.index in wanted]
    return blocks, [m.weight for block in blocks for m in (*attention_members(block), *mlp_members(block))]


def reduced(
    blocks: Sequence[Block],
    shape: Shape,
    rows: Callable[[Member], torch.Tensor],
    together: Callable[..., torch.Tensor],
    gqa_fold: GqaFold = "contiguous",
) -> Scores:
    """Scores of groups: `rows` says what each row of a member is worth, `together` makes it one score per group.

    Raises:
        MethodError: a score is not a number.
    """
    attention, mlp = {}, {}
    for block in blocks:
        length = shape.blocks[block.index].kv_heads * shape.head_dim
        folded = [fold(rows(member), length, shape.head_dim, gqa_fold) for member in attention_members(block)]
        attention[block.index] = together(folded, size=shape.head_dim)
        mlp[block.index] = together([rows(member) for member in mlp_members(block)], size=1)
    for layer in attention:
        _check_numbers(attention[layer], f"attention scores of layer {layer}")
        _check_numbers(mlp[layer], f"MLP scores of layer {layer}")
    return Scores(attention, mlp)


def first_order(member: Member) -> torch.Tensor:
    """w·g of each weight, float32 [rows, columns] as the weight lies."""
    assert member.weight.grad is not None
    return _matrix(member.weight.detach()) * _matrix(member.weight.grad)


def _backward(model: PreTrainedModel, ids: torch.Tensor, share: float = 1.0) -> None:
    with torch.enable_grad():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        (loss * share).backward()


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
