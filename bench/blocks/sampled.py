"""Taylor importance of groups, row by row of the calibration batch, for methods that ask how steady a score is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import Scores, shape_of
from bench.blocks.settings import Importance
from bench.blocks.taylor import (
    NEED_FISHER,
    Fisher,
    Progress,
    combine,
    first_order,
    gradients_of,
    members_of,
    reduced,
    row_by_row,
    saliency,
)


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
    blocks, weights = members_of(model, layers)
    shape = shape_of(model)
    vectors, elements = [], []

    def added(importance: Importance, fisher: Fisher) -> Scores:
        rows, together = partial(saliency, importance=importance, fisher=fisher), partial(combine, reduction="sum")
        return reduced(blocks, shape, rows, together)

    def vector() -> Scores:
        if whole_members:
            return reduced(blocks, shape, lambda member: first_order(member).sum(member.dim), _whole)
        return added("vectorize", {})

    with gradients_of(model, weights):
        mean = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in weights}
        fisher = {weight: torch.zeros_like(total) for weight, total in mean.items()} if element in NEED_FISHER else {}
        for _ in row_by_row(model, weights, ids, progress):
            vectors.append(vector())
            elements.append(added("param_first", {}))
            for weight in weights:
                gradient = weight.grad.float()
                mean[weight].add_(gradient, alpha=1 / len(ids))
                if weight in fisher:
                    fisher[weight].addcmul_(gradient, gradient, value=1 / len(ids))
        for weight, gradient in mean.items():
            weight.grad = gradient.to(weight.dtype)
        return Sampled(vector(), added(element, fisher), vectors, elements)


def _whole(members: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Signed rows of the members as one score per group: absolute values of the members' sums, added up."""
    return torch.stack([rows.view(-1, size).sum(1).abs() for rows in members]).sum(0)
