"""Statistics of what modules read while a model runs on text, taken by hooks and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.groups import Scores, blocks_of, shape_of
from bench.blocks.settings import ROWS_FORWARD
from bench.errors import MethodError
from bench.method import Progress

See = Callable[[int, torch.Tensor], None]


def watch(
    model: PreTrainedModel,
    ids: torch.Tensor,
    modules: Sequence[nn.Module],
    see: See,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Run `model` on `ids`, int64 [n, seq_len], and call `see(i, x)` with what `modules[i]` reads.

    x is [rows, seq_len, width]: a few rows at a time, in the order in which the modules run. The hooks are gone
    afterwards, whatever happens.
    """

    def shown(i: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: see(i, inputs[0])

    with ExitStack() as hooks, torch.no_grad():
        for i, module in enumerate(modules):
            hooks.callback(module.register_forward_pre_hook(shown(i)).remove)
        for done, rows in enumerate(chunks := ids.split(ROWS_FORWARD), start=1):
            model(input_ids=rows, use_cache=False)
            progress("calibration", done, len(chunks))


def input_norms(
    model: PreTrainedModel,
    ids: torch.Tensor,
    linears: Sequence[nn.Linear],
    progress: Progress = lambda what, done, total: None,
) -> list[torch.Tensor]:
    """For each of `linears` the L2 norm of each input feature over all tokens of `ids`: ‖X_j‖, float32 [inputs].

    Raises:
        MethodError: an activation is not finite.
    """
    squares = [torch.zeros(linear.weight.shape[1], device=linear.weight.device) for linear in linears]

    def add(i: int, x: torch.Tensor) -> None:
        squares[i] += x.float().square().sum(dim=(0, 1)).to(squares[i].device)

    watch(model, ids, linears, add, progress)
    if not all(bool(total.isfinite().all()) for total in squares):
        raise MethodError("the activations on the calibration text are not finite")
    return [total.sqrt() for total in squares]


def wanda_scores(
    model: PreTrainedModel,
    layers: Iterable[int],
    ids: torch.Tensor,
    progress: Progress = lambda what, done, total: None,
) -> Scores:
    """Scores of the attention groups and channels of `layers`: the sum over rows i of |W_ij|·‖X_j‖ (Wanda-sp).

    W is the projection that ends the module, X its inputs on `ids`, int64 [n, seq_len]; a head is the sum over its
    columns j, and a key/value head the sum over the query heads that read it.

    Source: Wanda (arXiv 2306.11695, eq. 1) with whole columns as in FLAP's baseline Wanda-sp (arXiv 2312.11983).

    Raises:
        MethodError: an activation is not finite.
    """
    chosen = [blocks_of(model)[layer] for layer in layers]
    ends = [linear for block in chosen for linear in (block.o, block.down)]
    norms = input_norms(model, ids, ends, progress)
    columns = [end.weight.float().abs().sum(0) * norm for end, norm in zip(ends, norms, strict=True)]
    heads = shape_of(model).blocks
    attention = {
        block.index: column.view(heads[block.index].kv_heads, -1).sum(1)
        for block, column in zip(chosen, columns[::2], strict=True)
    }
    return Scores(attention, {block.index: column for block, column in zip(chosen, columns[1::2], strict=True)})
