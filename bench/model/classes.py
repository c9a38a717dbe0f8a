"""The transformers classes of a family: stock, and lean, which transformers' Auto classes then know."""

from __future__ import annotations

from functools import cache

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from bench.errors import UsageError
from bench.family import Family
from bench.model.lean import lean

CAUSAL = "ForCausalLM"
LEAN_FILE = "lean.py"
"""The model file next to the weights of a lean checkpoint."""


def stock_class(family: Family) -> type[PreTrainedModel]:
    """The stock causal language model, whose `config_class` is the stock config's.

    Raises:
        UsageError: the installed transformers does not have it.
    """
    cls: type[PreTrainedModel] | None = getattr(transformers, family.architecture, None)
    if cls is None:
        there = f"transformers {transformers.__version__}"
        raise UsageError(f"family {family.model_type}: {there} has no {family.architecture}")
    return cls


@cache
def lean_class(family: Family) -> type[PreTrainedModel]:
    """The lean causal language model; transformers' Auto classes know it and its config and decoder from now on."""
    stock_class(family)
    config, decoder, causal = lean(prefix_of(family))
    AutoConfig.register(family.lean_type, config, exist_ok=True)
    AutoModel.register(config, decoder, exist_ok=True)
    AutoModelForCausalLM.register(config, causal, exist_ok=True)
    return causal


def class_of(family: Family, model_type: str) -> type[PreTrainedModel]:
    """The class for the `model_type` of a config.json of the family."""
    return lean_class(family) if model_type == family.lean_type else stock_class(family)


def config_class(family: Family) -> type[PreTrainedConfig]:
    """The stock config."""
    cls: type[PreTrainedConfig] = stock_class(family).config_class
    return cls


def prefix_of(family: Family) -> str:
    """What the names of the family's transformers classes begin with."""
    return family.architecture.removesuffix(CAUSAL)


def auto_map(family: Family) -> dict[str, str]:
    """Where transformers finds the lean classes in `LEAN_FILE`, for the config.json of a checkpoint."""
    ends = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForCausalLM": CAUSAL}
    return {auto: f"{LEAN_FILE.removesuffix('.py')}.Lean{prefix_of(family)}{end}" for auto, end in ends.items()}
