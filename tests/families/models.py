"""Every family's tiny models, with norms that are seen: weights that are not 1 and a large epsilon."""

from typing import Any

import torch
from transformers import PreTrainedModel

from bench.conformance.tiny import make_model, variants
from bench.family import known
from bench.model.layers import blocks_of, family_of, final_norm_of

MODELS: dict[str, dict[str, Any]] = {
    f"{family.model_type}-{kind}": fields for family in known().values() for kind, fields in variants(family).items()
}
IDS = torch.arange(60).view(2, 30) * 7 % 300
EPSILON = 0.03


def make(name: str, **fields: Any) -> PreTrainedModel:
    """The model of that name: the same one each time."""
    model = make_model(**{"rms_norm_eps": EPSILON, **MODELS[name], **fields})
    assert getattr(model.config, family_of(model).epsilon) == EPSILON
    generator = torch.Generator().manual_seed(1)
    norms = [norm for block in blocks_of(model) for norm in (block.attention_norm, block.mlp_norm)]
    for norm in (*norms, final_norm_of(model)):
        norm.weight.data += 0.3 * torch.randn(len(norm.weight), generator=generator)
    return model.requires_grad_(False)


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Float32 [2, 30, vocab]."""
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    """Within 1e-4 of the largest logit; a difference that is no number fails."""
    assert torch.isfinite(other).all()
    difference = float((one - other).abs().max() / other.abs().max())
    assert difference <= 1e-4, difference
