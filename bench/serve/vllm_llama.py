"""`lean_llama` in vLLM's own layers (0.32 and 0.33), with its paged attention, batching and key/value cache.

Plain projections stay vLLM's fused ones. Where one of q, k and v (or of gate and up) is factored, the fused layer makes
way for its parts. Low-rank factors and bottlenecks are `bench.model.lean_llama`'s modules, the same on every rank.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.utils import WeightsMapper, extract_layer_index

from bench.factor_shape import FactorShape, Slice
from bench.model.lean import Bottleneck, FactoredLinear, SharedFactors
from bench.shape import Shape

FUSED = {"qkv_proj": ("q", "k", "v"), "gate_up_proj": ("gate", "up")}
ALONE = ("o_proj", "down_proj")

Piece = tuple[SharedFactors, FactorShape, Slice]


class FactoredProjection(FactoredLinear):
    """As vLLM calls its layers: the output, and the bias apart (there is none)."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return super().forward(x), None


class Parts(nn.Module):
    """Several projections of one input, some of them factored, side by side in the output."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.is_shared = len({id(getattr(part, "factors", None)) for part in parts.values()}) == 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        parts = list(self.children())
        if self.is_shared:  # one product with the outer factor serves all
            inner = x @ parts[0].factors.outer
            return torch.cat([part.expand(inner) for part in parts], dim=-1), None
        return torch.cat([part(x) for part in parts], dim=-1), None


class LeanLlamaDecoderLayer(LlamaDecoderLayer):
    """A layer of its own widths, with its factored projections and its bottleneck in place."""

    def __init__(
        self, vllm_config: VllmConfig, prefix: str = "", *, shape: Shape, pieces: Mapping[int, list[Piece]]
    ) -> None:
        index = extract_layer_index(prefix)
        super().__init__(vllm_config, prefix, config=vllm_config.model_config.hf_config.per_layer_config[index])
        mine = {
            piece.projection.removesuffix("_proj"): (factors, form, piece)
            for factors, form, piece in pieces.get(index, [])
        }
        for fused, parts in FUSED.items():
            if set(parts) & set(mine):
                setattr(self._parent(fused), fused, Parts({name: _part(name, index, mine, shape) for name in parts}))
        for alone in ALONE:
            if (name := alone.removesuffix("_proj")) in mine:
                setattr(self._parent(alone), alone, _factored(FactoredProjection, *mine[name], shape))
        if shape.bottleneck:
            self.mlp.bottleneck = Bottleneck(shape.hidden, shape.bottleneck)

    def forward(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states, residual = super().forward(positions, hidden_states, residual)
        if hasattr(self.mlp, "bottleneck"):
            hidden_states = self.mlp.bottleneck(hidden_states)
        return hidden_states, residual

    def _parent(self, name: str) -> nn.Module:
        parent: nn.Module = self.self_attn if hasattr(self.self_attn, name) else self.mlp
        return parent


def _part(name: str, index: int, mine: Mapping[str, Piece], shape: Shape) -> nn.Module:
    if name in mine:
        return _factored(FactoredLinear, *mine[name], shape)
    rows, columns = shape.size(index, f"{name}_proj")
    plain: nn.Module = ReplicatedLinear(columns, rows, bias=False, return_bias=False)
    return plain


def _factored(
    cls: type[FactoredLinear], factors: SharedFactors, form: FactorShape, piece: Slice, shape: Shape
) -> FactoredLinear:
    return cls(factors, list(form.rank), form.count(piece, shape.size), piece.transposed, shape.head_dim)


class LeanLlamaModel(LlamaModel):
    """The decoder, and the low-rank factors that its layers share."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        shape = Shape.of(vllm_config.model_config.hf_config.to_dict())
        if shape.factors and get_tensor_model_parallel_world_size() > 1:
            raise ValueError(
                "low-rank factors are not split over GPUs: serve this checkpoint with one, tensor_parallel_size=1"
            )
        factors = [SharedFactors(form.rows, form.columns, list(form.rank)) for form in shape.factors]
        pieces: dict[int, list[Piece]] = defaultdict(list)
        for form, shared in zip(shape.factors, factors, strict=True):
            for piece in form.slices:
                pieces[piece.layer].append((shared, form, piece))
        layer = partial(LeanLlamaDecoderLayer, shape=shape, pieces=pieces)
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer)
        self.factors = nn.ModuleList(factors)
        self.hf_to_vllm_mapper = _names(shape) | LlamaModel.hf_to_vllm_mapper


def _names(shape: Shape) -> WeightsMapper:
    """Where the weights of parts lie: `qkv_proj.q`, which is not stacked as `q_proj` would be."""
    found = {(piece.layer, piece.projection.removesuffix("_proj")) for form in shape.factors for piece in form.slices}
    patterns = {}
    for fused, parts in FUSED.items():
        layers = sorted({layer for layer, part in found if part in parts})
        if layers:
            where = rf"^layers\.({'|'.join(map(str, layers))})\.(\w+)\.({'|'.join(parts)})_proj\."
            patterns[re.compile(where)] = rf"layers.\1.\2.{fused}.\3."
    return WeightsMapper(orig_to_new_regex=patterns)


class LeanLlamaForCausalLM(LlamaForCausalLM):
    """The decoder with its language-model head."""

    def _init_model(self, vllm_config: VllmConfig, prefix: str = "", layer_type: Any = None) -> LeanLlamaModel:
        return LeanLlamaModel(vllm_config=vllm_config, prefix=prefix)
