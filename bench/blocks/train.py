"""One training loop for every method that trains: AdamW, warm-up and linear decay, clipping, accumulation, budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.blocks.gradients import recomputed
from bench.blocks.masters import MasterWeights
from bench.blocks.resume import Resume, TrainingState
from bench.blocks.settings import TrainingConfig
from bench.errors import MethodError
from bench.method import IGNORED, Context, Example

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def causal_loss(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed negative log-likelihood of `labels` [batch, length] (-100 left out), each predicted from what precedes."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


@dataclass(frozen=True)
class Hooks:
    """What a method adds to the training loop.

    `groups` are AdamW's parameter groups with settings of their own (`lr`, `weight_decay`, `maximize`); by default one
    group of all parameters that require gradients. `penalty(step)` is added once to the loss of each step, from 1 on.
    `after_step(step)` runs after the optimiser. Where `may_keep(step)` is true, the weights of a step may be kept as
    the best by the examples set aside. Only the gradients of `clipped` (by default all trained) are clipped.
    """

    groups: Callable[[], list[dict[str, Any]]] | None = None
    penalty: Callable[[int], torch.Tensor] | None = None
    after_step: Callable[[int], None] = lambda step: None
    may_keep: Callable[[int], bool] = lambda step: True
    clipped: Sequence[nn.Parameter] | None = None


def train(
    model: nn.Module,
    ctx: Context,
    config: TrainingConfig,
    examples: Sequence[Example],
    *,
    name: str,
    loss: Loss = causal_loss,
    hooks: Hooks = Hooks(),
) -> None:
    """Train the parameters of `model` that require gradients, in place; leaves it in evaluation mode.

    The gradient of a step is that of the mean loss per target token of its `batch_size` examples. Where `holdout`
    examples are set aside, the weights of the step that predicts them best are the ones kept. Dropout draws from the
    global generator, which is seeded from `ctx` and put back afterwards. In a context with a workspace the state is
    saved every minute, and an interrupted run resumes from there with the same result.

    What is trained, its gradients and AdamW's moments are float32 whatever the model is (`MasterWeights`). On an
    accelerator the activations of a block are computed again on the way back (`recomputes`).

    Raises:
        MethodError: too few examples, or a loss that is not finite.
        BudgetExceeded: more steps than the context allows.
    """
    aside, train_on = _held_out(examples, config.holdout, ctx.generator(f"{name}: hold-out"))
    masters = MasterWeights()
    optimiser, trained = _optimiser(model, config, hooks, masters)
    ctx.meter.trainable_parameters = max(ctx.meter.trainable_parameters, sum(p.numel() for p in trained))
    steps = steps_of(config, len(train_on))
    batches = _batches(train_on, config.batch_size, steps, ctx.generator(f"{name}: order"))
    resume = Resume(ctx, name, trained, optimiser)
    recompute = recomputed(model) if recomputes(ctx.device) else nullcontext()
    with seeded(ctx, name), masters.gathering(), recompute, torch.enable_grad():
        model.train()
        progress = resume.load()
        masters.write()
        for step, batch in enumerate(batches[progress.step :], start=progress.step + 1):
            ctx.count_step()
            _set_rates(optimiser, _rate(step - 1, steps, config.warmup_steps))
            if hooks.penalty is not None:
                hooks.penalty(step).backward()
            _accumulate(model, [examples[i] for i in batch], config, loss, ctx.device, f"{name}: step {step}")
            clipped = trained if hooks.clipped is None else masters.of(hooks.clipped)
            nn.utils.clip_grad_norm_(clipped, config.grad_clip)
            optimiser.step()
            masters.write()
            optimiser.zero_grad(set_to_none=True)
            hooks.after_step(step)
            if aside and (step % config.evaluate_every == 0 or step == steps) and hooks.may_keep(step):
                _keep_best(progress, mean_loss(model, aside, config.micro_batch, loss, ctx.device), trained)
            progress.step = step
            resume.save(progress)
            ctx.progress(name, step, steps)
    for parameter, weights in zip(trained, progress.best, strict=False):
        parameter.data.copy_(weights)
    masters.write()
    resume.done()
    model.eval()


def _held_out(examples: Sequence[Example], holdout: int, generator: torch.Generator) -> tuple[list[Example], list[int]]:
    """The examples that are set aside, and the numbers of those to train on."""
    order = torch.randperm(len(examples), generator=generator).tolist()
    train_on = [i for i in order[holdout:] if targets_in([examples[i]])]
    if not train_on:
        raise MethodError(f"training needs more than holdout={holdout} examples; there are {len(examples)}")
    return [examples[i] for i in order[:holdout]], train_on


def steps_of(config: TrainingConfig, examples: int) -> int:
    """Optimiser steps that `config` asks for over so many examples."""
    return config.steps or max(1, round(config.epochs * examples / config.batch_size))


def recomputes(device: torch.device) -> bool:
    """Whether training on `device` keeps only the inputs of blocks, and computes their activations again.

    The numbers are the same, dropout's too. It takes a third more time: a good bargain where memory is what is short,
    on an accelerator, and a bad one on a CPU.
    """
    return bool(device.type != "cpu")


def _optimiser(
    model: nn.Module, config: TrainingConfig, hooks: Hooks, masters: MasterWeights
) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """AdamW and the parameters it trains; each group remembers its peak rate."""
    groups = hooks.groups() if hooks.groups else [{"params": [p for p in model.parameters() if p.requires_grad]}]
    groups = [group | {"params": masters.of(group["params"])} for group in groups]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    return optimiser, [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def _keep_best(progress: TrainingState, value: float, trained: Sequence[nn.Parameter]) -> None:
    if progress.best_loss is None or value < progress.best_loss:
        progress.best_loss = value
        progress.best = [parameter.detach().clone() for parameter in trained]


def mean_loss(
    model: nn.Module, examples: Sequence[Example], micro_batch: int, loss: Loss, device: torch.device
) -> float:
    """Mean loss per target token over `examples`, in evaluation mode."""
    was_training = model.training
    total = 0.0
    model.eval()
    with torch.no_grad():
        for i in range(0, len(examples), micro_batch):
            total += loss(model, *collate(examples[i : i + micro_batch], device)).item()
    model.train(was_training)
    return total / max(1, targets_in(examples))


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Ids and labels, int64 [batch, longest]: padded at the end, where a causal model needs no mask."""
    longest = max(len(example.input_ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids.to(device), labels.to(device)


@contextmanager
def seeded(ctx: Context, name: str) -> Iterator[None]:
    """Within the block, the global generators are seeded from `ctx` and `name`; afterwards they are as before."""
    with torch.random.fork_rng(devices=[ctx.device] if ctx.device.type == "cuda" else []):
        torch.manual_seed(ctx.derived_seed(name))
        yield


def _accumulate(
    model: nn.Module, batch: Sequence[Example], config: TrainingConfig, loss: Loss, device: torch.device, what: str
) -> None:
    """Add the gradient of the batch's mean loss per target token, `micro_batch` examples at a time."""
    targets = targets_in(batch)
    for i in range(0, len(batch), config.micro_batch):
        part = loss(model, *collate(batch[i : i + config.micro_batch], device)) / targets
        if not torch.isfinite(part):
            raise MethodError(f"{what}: the loss is not finite; try a lower learning rate than {config.lr:g}")
        part.backward()


def targets_in(examples: Sequence[Example]) -> int:
    """Tokens that a loss is taken on: the first of an example is predicted from nothing, and does not count."""
    return sum(label != IGNORED for example in examples for label in example.labels[1:])


def _rate(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear up over the warm-up (at most half of all steps), then linear down to 0."""
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / max(1, steps - warmup)


def _batches(indices: Sequence[int], size: int, steps: int, generator: torch.Generator) -> list[list[int]]:
    """`steps` batches; every index comes once before any repeats."""
    drawn: list[int] = []
    while len(drawn) < steps * size:
        drawn += [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]
    return [drawn[i * size : (i + 1) * size] for i in range(steps)]
