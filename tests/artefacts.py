"""One tiny checkpoint of every kind that Leanboard makes; heads have 32 dimensions, as vLLM on a CPU knows no fewer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.api import compress
from bench.blocks.lowrank import cp, svd, tucker
from bench.blocks.stacks import single_stack, stack, stacks_of
from bench.model.checkpoint import save_checkpoint
from bench.model.factors import Factors
from bench.model.layers import shape_of
from bench.model.lean import Bottleneck
from bench.model.surgery import add_bottlenecks, factorize, kept_of, prune
from bench.shape import BlockKept, Kept
from tests.tiny import make_checkpoint, make_model, make_tokenizer

MHA: dict[str, Any] = {"hidden": 128}
GQA: dict[str, Any] = {"hidden": 128, "kv_heads": 2, "tied": True}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}

SHAPES = {"mha": MHA, "gqa": GQA}
"""Of LLaMAs without biases."""

PLUGGED_IN: dict[str, dict[str, Any]] = {
    "granite": {**GQA, "family": "granite", "residual_multiplier": 0.5, "logits_scaling": 2.0}
}
"""Of the family in tests/plugins."""

FAMILIES: dict[str, dict[str, Any]] = {
    "biased": {**GQA, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3, "tied": False},
    "mistral-mha": {**MHA, "family": "mistral", "sliding_window": None},
    "mistral-gqa": {**GQA, "family": "mistral", "sliding_window": 16},
    "qwen2-mha": {**MHA, "family": "qwen2"},
    "qwen2-gqa": {**GQA, "family": "qwen2", **WINDOW},
    "qwen3-mha": {**MHA, "family": "qwen3"},
    "qwen3-gqa": {**GQA, "family": "qwen3", "head_dim": 64},
}
"""Of LLaMAs as Llama 3 can be, and of the other families."""


def uneven(model: PreTrainedModel) -> PreTrainedModel:
    """Heads, key/value heads and channels differ from layer to layer."""
    per_kv = shape_of(model).blocks[0].heads // shape_of(model).blocks[0].kv_heads
    heads = {0: (0, 1, 2, 3), 1: tuple(range(per_kv)), 2: tuple(range(0, 4, per_kv)), 3: (0, 1, 2, 3)}
    channels = {0: 96, 1: 50, 2: 77, 3: 3}
    return prune(model, Kept({i: BlockKept(heads[i], tuple(range(channels[i]))) for i in heads}))


def uniform(model: PreTrainedModel) -> PreTrainedModel:
    return prune(model, Kept({i: BlockKept((0, 1), tuple(range(64))) for i in (0, 2, 3)}))


def factored(model: PreTrainedModel) -> PreTrainedModel:
    """Factors shared by the attention of a layer, by an MLP, and of single matrices; diagonal and full cores."""
    shape = shape_of(model)
    units = [*stacks_of(shape, 2, (1, 2), attention_set="kv_group"), *stacks_of(shape, 5, (2, 3))]
    stacks = [s for unit in units for s in unit]
    found = [(s.slices, approximate(stack(model, s), number)) for number, s in enumerate(stacks)]
    singles = [single_stack(shape, 0, projection) for projection in ("q_proj", "up_proj", "o_proj")]
    return factorize(model, found + [(one.slices, svd(stack(model, one), 9).factors) for one in singles])


def approximate(x: torch.Tensor, number: int) -> Factors:
    if number % 2:
        return tucker(x, (10, 12), sweeps=1).factors
    return cp(x, 10, torch.Generator().manual_seed(0), starts=["hosvd"], sweeps=2).factors


def widened(model: PreTrainedModel) -> PreTrainedModel:
    """A bottleneck behind every MLP."""
    torch.manual_seed(3)
    bottlenecks = [Bottleneck(shape_of(model).hidden, 8) for _ in shape_of(model).blocks]
    for bottleneck in bottlenecks:
        torch.nn.init.normal_(bottleneck.up.weight, std=0.2)
    return add_bottlenecks(model, bottlenecks)


def everything(model: PreTrainedModel) -> PreTrainedModel:
    model = uneven(model)
    one = single_stack(shape_of(model), 2, "gate_proj")
    return widened(factorize(model, [(one.slices, svd(stack(model, one), 9).factors)]))


KINDS: dict[str, Callable[[PreTrainedModel], PreTrainedModel]] = {
    "uniform": uniform,
    "uneven": uneven,
    "factored": factored,
    "bottleneck": widened,
    "everything": everything,
}


def make(kind: str, shape: str, folder: Path) -> Path:
    """Save the artefact of that kind in `folder`, as a run would."""
    if kind == "merged":
        return merged(shape, folder)
    with torch.no_grad():
        model = KINDS[kind](make_model(**(SHAPES | FAMILIES | PLUGGED_IN)[shape]))
    save_checkpoint(
        folder, model, make_tokenizer(), ingredients={"kind": kind}, achieved={"params": 0.1}, kept=kept_of(model)
    )
    return folder


def merged(shape: str, folder: Path) -> Path:
    """A PEFT adapter trained and merged by the method `lora`."""
    dense = make_checkpoint(folder.with_name(f"{folder.name}-dense"), **(SHAPES | FAMILIES | PLUGGED_IN)[shape])
    ids = torch.randint(3, 300, (8, 32), generator=torch.Generator().manual_seed(0))
    compress(dense, "lora", config={"steps": 3}, calibration=ids, out=folder)
    return folder
