"""The LLaMA-family adapter: the one place that knows what the modules of a decoder are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import MethodError
from bench.shape import Shape

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Block:
    """The seven projections (`nn.Linear`, weight [out, in]) and two norms of one decoder block."""

    index: int
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    attention_norm: nn.Module
    mlp_norm: nn.Module

    def linear(self, projection: str) -> nn.Linear:
        """The projection of that name, one of `PROJECTIONS`."""
        linear: nn.Linear = getattr(self, projection.removesuffix("_proj"))
        return linear


def blocks_of(model: PreTrainedModel) -> list[Block]:
    """The decoder blocks of `model`, first to last.

    Raises:
        MethodError: some of their projections are factored, so there are no matrices to hand out.
    """
    if shape_of(model).factors:
        raise MethodError("the model has low-rank factors, and the method needs plain matrices: give it a dense model")
    return [
        Block(
            i,
            layer.self_attn.q_proj,
            layer.self_attn.k_proj,
            layer.self_attn.v_proj,
            layer.self_attn.o_proj,
            layer.mlp.gate_proj,
            layer.mlp.up_proj,
            layer.mlp.down_proj,
            layer.input_layernorm,
            layer.post_attention_layernorm,
        )
        for i, layer in enumerate(model.model.layers)
    ]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of the decoder blocks, first to last."""
    return list(model.model.layers)


def path_of(layer: int, projection: str) -> str:
    """Where the projection of that name, one of `PROJECTIONS`, lies in the model."""
    return f"model.layers.{layer}.{'mlp' if projection in PROJECTIONS[4:] else 'self_attn'}.{projection}"


def bottlenecks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The bottlenecks behind the MLPs of a model that has them, first to last: `down` and `up`, `nn.Linear` both."""
    return [layer.mlp.bottleneck for layer in model.model.layers]


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    """The token embedding, weight [vocab, hidden]."""
    return model.model.embed_tokens


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The language-model head, weight [vocab, hidden]; the same parameter as the embedding where they are tied."""
    return model.lm_head


def final_norm_of(model: PreTrainedModel) -> nn.Module:
    """The norm before the head."""
    return model.model.norm


def shape_of(model: PreTrainedModel) -> Shape:
    """The widths of `model`, read from its config."""
    return Shape.from_config(model.config)
