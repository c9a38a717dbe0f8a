"""Taylor importance of groups, row by row of the calibration batch, for methods that ask how steady a score is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.gradients import each_row, in_turn, parts, taking
from bench.blocks.groups import Member, Scores, shape_of
from bench.blocks.settings import Importance
from bench.blocks.taylor import NEED_FISHER, combine, empty_rows, first_order, members_of, reduced, saliency
from bench.method import Progress


@dataclass(frozen=True)
class Sampled:
    """Vector and element scores of the same groups from the same backward passes.

    `vector` and `element` are of all calibration rows together; `vectors` and `elements` hold those of each row's own
    gradient, in the order of the rows. An element score of one row is first order: F is known after the last row only.
    """

    vector: Scores
    element: Scores
    vectors: Sequence[Scores]
    elements: Sequence[Scores]


def sample_groups(
    model: PreTrainedModel,
    layers: Iterable[int],
    ids: torch.Tensor,
    element: Importance = "param_mix",
    *,
    whole_members: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Sampled:
    """Scores of the attention and MLP groups of `layers`, together and for each row of `ids`, int64 [n, seq_len].

    g and F are gathered over one backward pass per row, whose own scores are reduced to group vectors at once. Members
    of a group are added up. The vector score takes the absolute value of w·g summed over a row of a member, or with
    `whole_members` over all that a group owns of it. No gradient is left behind.

    Raises:
        MethodError: a score is not a number.
    """
    blocks, members = members_of(model, layers)
    shape = shape_of(model)
    mine = _gathered(model, members, ids, element, whole_members, progress)

    def added(rows: Sequence[torch.Tensor]) -> Scores:
        return reduced(blocks, shape, rows, partial(combine, reduction="sum"))

    def vector(rows: Sequence[torch.Tensor]) -> Scores:
        return reduced(blocks, shape, rows, _whole) if whole_members else added(rows)

    return Sampled(
        vector([m.vector for m in mine]),
        added([m.element for m in mine]),
        [vector(rows) for rows in zip(*(m.vectors for m in mine), strict=True)],
        [added(rows) for rows in zip(*(m.elements for m in mine), strict=True)],
    )


@dataclass
class _Worth:
    """What the rows of a member are worth, float32 [rows]: to the whole batch, and to each row of it, `done` so far."""

    member: Member
    vectors: list[torch.Tensor]
    elements: list[torch.Tensor]
    vector: torch.Tensor
    element: torch.Tensor
    done: int = 0

    @classmethod
    def none_yet(cls, member: Member, n: int) -> _Worth:
        vectors, elements = ([empty_rows(member) for _ in range(n)] for _ in range(2))
        return cls(member, vectors, elements, empty_rows(member), empty_rows(member))


def _gathered(
    model: PreTrainedModel,
    members: Sequence[Member],
    ids: torch.Tensor,
    element: Importance,
    whole_members: bool,
    progress: Progress,
) -> list[_Worth]:
    """The worth of each member, from a backward pass per row for a few layers at a time."""
    found = {member.weight: _Worth.none_yet(member, len(ids)) for member in members}

    def vector(member: Member, gradient: torch.Tensor) -> torch.Tensor:
        if whole_members:
            return first_order(member, gradient).sum(member.dim)
        return saliency(member, "vectorize", gradient)

    turns = list(parts(model, list(found), each=8 if element in NEED_FISHER else 4))
    for turn, part in enumerate(turns):
        here = {weight: found[weight] for weight in part}
        _gather(model, here, ids, element, vector, in_turn(progress, turn, len(turns)))
    return list(found.values())


def _gather(
    model: PreTrainedModel,
    found: Mapping[nn.Parameter, _Worth],
    ids: torch.Tensor,
    element: Importance,
    vector: Callable[[Member, torch.Tensor], torch.Tensor],
    progress: Progress,
) -> None:
    """Fill in what the members of some weights are worth; g and F are summed over the rows, in float32."""
    mean = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in found}
    fisher = {weight: torch.zeros_like(total) for weight, total in mean.items() if element in NEED_FISHER}

    def take(weight: nn.Parameter, gradient: torch.Tensor) -> None:
        mine = found[weight]
        mine.vectors[mine.done].copy_(vector(mine.member, gradient))
        mine.elements[mine.done].copy_(saliency(mine.member, "param_first", gradient))
        mine.done += 1
        gradient = gradient.float()
        mean[weight].add_(gradient, alpha=1 / len(ids))
        if weight in fisher:
            fisher[weight].addcmul_(gradient, gradient, value=1 / len(ids))

    with taking(model, list(found), take):
        each_row(model, ids, progress)
    for weight, mine in found.items():
        gradient = mean[weight].to(weight.dtype)
        mine.vector.copy_(vector(mine.member, gradient))
        mine.element.copy_(saliency(mine.member, element, gradient, fisher.get(weight)))


def _whole(members: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Signed rows of the members as one score per group: absolute values of the members' sums, added up."""
    return torch.stack([rows.view(-1, size).sum(1).abs() for rows in members]).sum(0)
