"""Decoders with widths of their own in every layer, low-rank factors in the place of projections, and bottlenecks.

`lean("Qwen2")` gives the classes of `lean_qwen2`: those of transformers' Qwen2, with each layer built from
`config.per_layer_config[i]` (transformers >= 5.16). `num_attention_heads`, `num_key_value_heads` and
`intermediate_size` may differ from layer to layer, `head_dim` is explicit and the same everywhere. `config.factors`
lists the low-rank factors, `config.bottleneck` is the width of an adapter behind every MLP. Everything else is stock.

This file depends on torch and transformers alone: it is copied next to the weights of a checkpoint, so that others load
it with `trust_remote_code=True` and without Leanboard. The classes go by their names: `lean.LeanQwen2ForCausalLM`.
"""

import copy
import sys
from functools import cache
from typing import Any

import torch
import transformers
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


class SharedFactors(nn.Module):
    """What slices share: slice k is inner · core_k · outerᵀ, with inner [p, r1] and outer [q, r2]."""

    def __init__(self, rows: int, columns: int, rank: list[int]) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(rows, rank[0]) * rank[0] ** -0.5)
        self.outer = nn.Parameter(torch.randn(columns, rank[-1]) * columns**-0.5)


class FactoredLinear(nn.Module):
    """A projection that is `n` slices of `factors`; it owns their cores, [n, r] (diagonals) or [n, r1, r2], and a bias.

    Slice j is the j-th of every n heads. The factors are registered once, in the model; here is a reference to them.
    `bias` is the number of its entries, 0 where there is none.
    """

    def __init__(
        self, factors: SharedFactors, rank: list[int], n: int, transposed: bool, head_dim: int, bias: int = 0
    ) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.randn(n, *rank))
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None
        self.__dict__["factors"] = factors
        self.transposed, self.head_dim = transposed, head_dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.transposed:
            return self.expand(x @ self.factors.outer)
        n = len(self.core)
        x = x.unsqueeze(-2) if n == 1 else x.unflatten(-1, (-1, n, self.head_dim)).transpose(-3, -2).flatten(-2)
        x = x @ self.factors.inner
        x = (x * self.core).sum(-2) if self.core.dim() == 2 else x.flatten(-2) @ self.core.flatten(0, 1)
        return self._biased(x @ self.factors.outer.T)

    def expand(self, x: torch.Tensor) -> torch.Tensor:
        """From the product with `outer`, [..., r2], to the output."""
        if self.core.dim() == 2:
            x = x.unsqueeze(-2) * self.core
        else:
            x = (x @ self.core.flatten(0, 1).T).unflatten(-1, self.core.shape[:2])
        x, n = x @ self.factors.inner.T, len(self.core)
        x = x.squeeze(-2) if n == 1 else x.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2).flatten(-3)
        return self._biased(x)

    def _biased(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.bias is None else x + self.bias


class Bottleneck(nn.Module):
    """z + W_u ReLU(W_d z + b_d) + b_u with W_d [width, hidden] and W_u [hidden, width]: an adapter behind the MLP."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + self.up(nn.functional.relu(self.down(z)))


class LeanConfig:
    """What a lean config adds to its stock one: layers may differ; global values are those of the dense model.

    An entry of `factors` is `{"rows": p, "columns": q, "rank": [r] or [r1, r2], "slices": [...]}`; each of its slices
    is `[layer, projection, transposed]`, a projection whose weight [out, in] (or its transpose) is low-rank.
    """

    def validate_architecture(self) -> None:
        """Check every layer instead of the global head count (some stock checks read that).

        Raises:
            ValueError: a layer is empty, or its query heads are not a multiple of its key/value heads.
        """
        for i, layer in enumerate(self.per_layer_config):
            widths = (layer.num_attention_heads, layer.num_key_value_heads, layer.intermediate_size)
            if min(widths) < 1:
                raise ValueError(f"layer {i}: heads, key/value heads and channels must be at least 1, not {widths}")
            if layer.num_attention_heads % layer.num_key_value_heads:
                raise ValueError(f"layer {i}: {widths[0]} heads are not a multiple of {widths[1]} key/value heads")


class LeanMLP:
    """A gated MLP whose gate and up may share factors, with one product with `outer`; then the bottleneck, if any."""

    def __init__(self, config: PreTrainedConfig, bottleneck: int | None) -> None:
        super().__init__(config)
        self.bottleneck = Bottleneck(config.hidden_size, bottleneck) if bottleneck else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self._dense_or_factored(x)
        return z if self.bottleneck is None else self.bottleneck(z)

    def _dense_or_factored(self, x: torch.Tensor) -> torch.Tensor:
        factors = getattr(self.gate_proj, "factors", None)
        if factors is not getattr(self.up_proj, "factors", None) or factors is None:
            return super().forward(x)
        x = x @ self.gate_proj.factors.outer
        return self.down_proj(self.act_fn(self.gate_proj.expand(x)) * self.up_proj.expand(x))


class LeanModel:
    """A decoder whose layers are built one by one: forward pass, cache and masks are the stock one's."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(_without_layers(config))
        config._attn_implementation = self.config._attn_implementation
        self.config = config
        self.layers = nn.ModuleList(self.layer_class(config, i) for i in range(config.num_hidden_layers))
        self.factors = nn.ModuleList(self._factored(entry) for entry in config.factors or ())
        self.post_init()

    def _factored(self, entry: dict[str, Any]) -> SharedFactors:
        """The factors of an entry of `config.factors`, with the projections that are their slices in place."""
        rows, rank = entry["rows"], entry["rank"]
        factors = SharedFactors(rows, entry["columns"], rank)
        for layer, projection, transposed in entry["slices"]:
            decoder, head_dim = self.layers[layer], self.layers[layer].self_attn.head_dim
            parent = decoder.mlp if hasattr(decoder.mlp, projection) else decoder.self_attn
            dense = getattr(parent, projection)
            n, bias = dense.weight.shape[transposed] // rows, 0 if dense.bias is None else len(dense.bias)
            setattr(parent, projection, FactoredLinear(factors, rank, n, transposed, head_dim, bias))
        return factors


class LeanForCausalLM:
    """The decoder with its language-model head."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(_without_layers(config))
        config._attn_implementation = self.config._attn_implementation
        self.config = config
        self.model = self.decoder_class(config)
        self.post_init()


def _without_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """What a stock class can be built from, which reads the widths of a layer from the config of the whole."""
    empty = copy.copy(config.per_layer_config[0])
    empty.num_hidden_layers = 0
    return empty


@cache
def lean(prefix: str) -> tuple[type[PreTrainedConfig], type[PreTrainedModel], type[PreTrainedModel]]:
    """The lean config, decoder and causal language model of a stock model, by what its classes' names begin with."""
    stock = getattr(transformers, f"{prefix}ForCausalLM")
    modeling = vars(sys.modules[stock.__module__])

    def named(cls: type) -> type:
        cls.__name__ = cls.__qualname__ = f"Lean{prefix}{cls.__name__.removeprefix('Lean')}"
        cls.__module__ = __name__
        return cls

    class Config(LeanConfig, stock.config_class):
        model_type = f"lean_{stock.config_class.model_type}"
        factors: list[dict[str, Any]] | None = None
        bottleneck: int | None = None

    config_class = strict(named(Config))

    @named
    class MLP(LeanMLP, modeling[f"{prefix}MLP"]):
        pass

    @named
    class DecoderLayer(modeling[f"{prefix}DecoderLayer"]):
        def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
            super().__init__(config.per_layer_config[layer_idx], layer_idx)
            self.mlp = MLP(config.per_layer_config[layer_idx], config.bottleneck)
            self.self_attn.config = config  # the attention implementation is set on, and read from, the shared config

    @named
    class Model(LeanModel, modeling[f"{prefix}Model"]):
        layer_class = DecoderLayer

    @named
    class ForCausalLM(LeanForCausalLM, stock):
        decoder_class = Model

    for cls in (Model, ForCausalLM):
        cls.config_class = config_class
        cls._no_split_modules = [DecoderLayer.__name__]
    return config_class, Model, ForCausalLM


def __getattr__(name: str) -> type:
    """A lean class by its name."""
    for index, suffix in enumerate(("Config", "Model", "ForCausalLM")):
        prefix = name.removeprefix("Lean").removesuffix(suffix)
        if name == f"Lean{prefix}{suffix}" and prefix and hasattr(transformers, f"{prefix}ForCausalLM"):
            return lean(prefix)[index]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
