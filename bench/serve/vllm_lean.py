"""Lean checkpoints in vLLM's own layers (0.32 and 0.33), with its paged attention, batching and key/value cache.

`LeanQwen2ForCausalLM` is vLLM's model of the family, each of its layers built from a config of its own widths. Plain
projections stay vLLM's fused ones. Where one that was fused with others is factored, the fused layer makes way for its
parts. Low-rank factors and bottlenecks are `bench.model.lean`'s modules, the same on every rank.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.utils import WeightsMapper, extract_layer_index, make_layers, maybe_prefix

from bench.factor_shape import FactorShape, Slice
from bench.family import Family, known
from bench.model.classes import CAUSAL
from bench.model.layers import bottleneck_path
from bench.model.lean import Bottleneck, FactoredLinear, SharedFactors
from bench.shape import Shape

Piece = tuple[SharedFactors, FactorShape, Slice]
Fused = Mapping[str, list[str]]
"""vLLM's `packed_modules_mapping`: the projections in each of its fused layers."""


class FactoredProjection(FactoredLinear):
    """As vLLM calls its layers: the output, and what of the bias is still to be added (nothing)."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return super().forward(x), None


class Parts(nn.ModuleList):
    """Several projections of one input, some of them factored, side by side in the output."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__(parts)
        self.is_shared = len({id(getattr(part, "factors", None)) for part in parts}) == 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self.is_shared:  # one product with the outer factor serves all
            inner = x @ self[0].factors.outer
            return torch.cat([part.expand(inner) for part in self], dim=-1), None
        return torch.cat([part(x) for part in self], dim=-1), None


@cache
def lean(family: Family) -> type[nn.Module]:
    """vLLM's causal language model of `family` with lean layers."""
    stock: Any = _stock(family)

    class Lean(stock):
        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
            config = vllm_config.model_config.hf_config
            shape = Shape.of(config.to_dict())
            if shape.factors and get_tensor_model_parallel_world_size() > 1:
                raise ValueError(
                    "low-rank factors are not split over GPUs: serve this checkpoint with one, tensor_parallel_size=1"
                )
            vllm_config.model_config.hf_config = _without_layers(config)
            try:
                super().__init__(vllm_config=vllm_config, prefix=prefix)
            finally:
                vllm_config.model_config.hf_config = config
            above, _, name = family.layers.rpartition(".")
            decoder = self.get_submodule(above)
            self.config = decoder.config = config
            factors = [SharedFactors(form.rows, form.columns, list(form.rank)) for form in shape.factors]
            decoder.start_layer, decoder.end_layer, layers = make_layers(
                len(shape.blocks),
                _Layers(family, vllm_config, shape, factors, self.packed_modules_mapping),
                maybe_prefix(prefix, family.layers),
            )
            decoder.add_module(name, layers)
            decoder.factors = nn.ModuleList(factors)
            decoder.hf_to_vllm_mapper = _names(shape, self.packed_modules_mapping) | decoder.hf_to_vllm_mapper

    Lean.__name__ = Lean.__qualname__ = family.lean_architecture
    Lean.__module__ = __name__
    return Lean


def _stock(family: Family) -> type[nn.Module]:
    cls: type[nn.Module] = ModelRegistry.models[family.in_vllm or family.architecture].load_model_cls()
    return cls


def _without_layers(config: Any) -> Any:
    """What a stock class can be built from, which reads the widths of a layer from the config of the whole."""
    empty = copy.copy(config.per_layer_config[0])
    empty.num_hidden_layers = 0
    return empty


class _Layers:
    """Makes layers: each of its own widths, with its factored projections and its bottleneck in place."""

    def __init__(
        self, family: Family, vllm_config: VllmConfig, shape: Shape, factors: list[SharedFactors], fused: Fused
    ) -> None:
        stock = _stock(family)
        stem = stock.__name__.removesuffix(CAUSAL)
        self.cls = vars(sys.modules[stock.__module__])[f"{stem}DecoderLayer"]
        self.takes = inspect.signature(self.cls).parameters
        self.family, self.vllm_config, self.shape, self.fused = family, vllm_config, shape, fused
        self.pieces: dict[int, dict[str, Piece]] = defaultdict(dict)
        for form, shared in zip(shape.factors, factors, strict=True):
            for piece in form.slices:
                self.pieces[piece.layer][piece.projection] = (shared, form, piece)

    def __call__(self, prefix: str) -> nn.Module:
        index = extract_layer_index(prefix)
        config = copy.copy(self.vllm_config.model_config.hf_config.per_layer_config[index])
        for name, value in self.family.in_vllm_fields.items():
            setattr(config, name, value)
        offered = {
            "vllm_config": self.vllm_config,
            "config": config,
            "cache_config": self.vllm_config.cache_config,
            "quant_config": self.vllm_config.quant_config,
            "prefix": prefix,
        }
        layer: nn.Module = self.cls(**{name: value for name, value in offered.items() if name in self.takes})
        self._factor(layer, index)
        if self.shape.bottleneck:
            mlp = layer.get_submodule(bottleneck_path(self.family).rpartition(".")[0])
            mlp.bottleneck = Bottleneck(self.shape.hidden, self.shape.bottleneck)
            mlp.register_forward_hook(lambda module, _, output: module.bottleneck(output))
        return layer

    def _factor(self, layer: nn.Module, index: int) -> None:
        mine = self.pieces[index]
        fused = {part: (name, parts) for name, parts in self.fused.items() for part in parts}
        for projection in mine:
            name, parts = fused.get(projection, (projection, [projection]))
            place = f"{self.family.projection(projection).path.rpartition('.')[0]}.{name}"
            if isinstance(layer.get_submodule(place), Parts):
                continue  # made way already, for another of its parts
            if len(parts) == 1:
                layer.set_submodule(place, self._factored(FactoredProjection, index, projection))
            else:
                layer.set_submodule(place, Parts([self._part(index, part) for part in parts]))

    def _part(self, index: int, projection: str) -> nn.Module:
        if projection in self.pieces[index]:
            return self._factored(FactoredLinear, index, projection)
        rows, columns = self.shape.size(index, projection)
        plain: nn.Module = ReplicatedLinear(columns, rows, bias=projection in self.shape.biased, return_bias=False)
        return plain

    def _factored(self, cls: type[FactoredLinear], index: int, projection: str) -> FactoredLinear:
        factors, form, piece = self.pieces[index][projection]
        size = self.shape.size
        bias = size(index, projection)[0] if projection in self.shape.biased else 0
        n = form.count(piece, size)
        return cls(factors, list(form.rank), n, piece.transposed, self.shape.head_dim, bias)


def _names(shape: Shape, fused: Fused) -> WeightsMapper:
    """Where the weights of parts lie: those of `q_proj` in `qkv_proj.0`, and not in a stack."""
    layers = re.escape(shape.family.layers.rpartition(".")[2])
    patterns = {}
    for name, parts in fused.items():
        split = sorted({piece.layer for form in shape.factors for piece in form.slices if piece.projection in parts})
        for number, part in enumerate(parts if split else ()):
            where = rf"^({layers}\.(?:{'|'.join(map(str, split))})\..+)\.{part}\."
            patterns[re.compile(where)] = rf"\1.{name}.{number}."
    return WeightsMapper(orig_to_new_regex=patterns)


def __getattr__(name: str) -> type[nn.Module]:
    """A lean class by its name, which vLLM's registry has from `vllm_plugin.register`."""
    for family in known().values():
        if name == family.lean_architecture:
            return lean(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
