"""What a model family is: one table, read by all that counts, slices, rebuilds or serves a decoder. No torch.

A family is built from blocks of attention with grouped queries and a gated MLP: seven projections, each a matrix of its
own, and norms of the hidden state. What such a table cannot say is refused by `of_config`, in one sentence.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import bench.families
from bench.errors import UsageError
from bench.families import DEFAULT, PROJECTIONS, ProjectionName

LEAN = "lean_"
"""What comes before a family's `model_type` in checkpoints whose layers differ, or that hold factors."""


class Axis(StrEnum):
    """What the rows or columns of a matrix stand for."""

    HIDDEN = "hidden dimensions"
    QUERY = "dimensions of query heads"
    KV = "dimensions of key/value heads"
    CHANNELS = "MLP channels"


@dataclass(frozen=True)
class Projection:
    """A matrix [rows, columns] at `path` within a decoder block; the path ends in its name, one of `PROJECTIONS`."""

    path: str
    rows: Axis
    columns: Axis

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def writes(self) -> bool:
        """Whether it ends its module: what it gives is added to the hidden state."""
        return self.rows is Axis.HIDDEN


@dataclass(frozen=True)
class Gguf:
    """An architecture of llama.cpp that computes what a family's models do, and what it can hold.

    `interleaved` says that it rotates neighbouring rows of a head together, so that the halves of a head are woven;
    `uneven` that widths may differ from layer to layer, `rope_factors` that it reads a factor for each frequency (as
    Llama 3 needs), `biases` which projections may have one, `derives_head_dim` that heads must be hidden/heads wide.
    """

    architecture: str
    interleaved: bool = False
    uneven: bool = False
    rope_factors: bool = False
    derives_head_dim: bool = False
    biases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """The modules of a decoder by their paths, and how its config.json is read.

    `projections` stand in the order of `PROJECTIONS`. `biases` says which of them have one: always (True), or where a
    field of the config says so. `head_norms` are norms of each head's rows of a projection, by its name. `epsilon` is
    the config's field for that of all norms, `defaults` what transformers takes where config.json is silent.
    `has_window` tells whether `sliding_window` and its like mean anything.

    What servers must know: `gguf` lists architectures of llama.cpp, of which the first that can hold a model is taken;
    `splits` are, by llama.cpp's names, the regular expressions by which tokenizers find words. vLLM builds a lean model
    from the layers of the architecture `in_vllm` (its own where that is empty), whose config must hold `in_vllm_fields`
    as well. `derives_head_dim` says that vLLM's own takes hidden/heads for the width of a head, whatever config.json
    says, so that no model with other heads is saved as a stock checkpoint.
    """

    model_type: str
    title: str
    architecture: str
    projections: tuple[Projection, ...]
    attention_norm: str
    mlp_norm: str
    epsilon: str
    layers: str
    embedding: str
    final_norm: str
    head: str
    rotary: str
    biases: Mapping[str, bool | str] = field(default_factory=dict, hash=False)
    head_norms: Mapping[str, str] = field(default_factory=dict, hash=False)
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    has_window: bool = False
    gguf: tuple[Gguf, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict, hash=False)
    in_vllm: str = ""
    in_vllm_fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    derives_head_dim: bool = False

    def __post_init__(self) -> None:
        if tuple(projection.name for projection in self.projections) != PROJECTIONS:
            raise ValueError(f"family {self.model_type}: projections must be {', '.join(PROJECTIONS)}")
        if any((p.rows is Axis.HIDDEN) == (p.columns is Axis.HIDDEN) for p in self.projections):
            raise ValueError(f"family {self.model_type}: every projection has the hidden dimensions on one side")

    def but(self, **changes: Any) -> Family:
        """The same with some fields changed."""
        return replace(self, **changes)

    @property
    def lean_type(self) -> str:
        """The `model_type` of a checkpoint of ours whose layers differ."""
        return LEAN + self.model_type

    @property
    def lean_architecture(self) -> str:
        """The causal language model of such a checkpoint, as its config.json names it."""
        return f"Lean{self.architecture}"

    def projection(self, name: str) -> Projection:
        return self.projections[PROJECTIONS.index(name)]

    def path(self, layer: int, name: str) -> str:
        """Where the projection `name` of a layer lies in the model."""
        return f"{self.layers}.{layer}.{self.projection(name).path}"

    def biased(self, config: Mapping[str, Any]) -> tuple[ProjectionName, ...]:
        """The projections that have a bias in a model of this config.json."""
        return tuple(n for n in PROJECTIONS if (b := self.biases.get(n)) is True or (b and self.value(config, str(b))))

    def value(self, config: Mapping[str, Any], name: str) -> Any:
        """A field of config.json, or what stands for it where it is missing."""
        return config.get(name, self.defaults.get(name))

    def window(self, config: Mapping[str, Any]) -> int | None:
        """How many tokens back attention reaches, the token itself included; None where it reaches all.

        Raises:
            UsageError: that differs from layer to layer.
        """
        types = self._window_types(config)
        if len(types) > 1:
            raise UsageError(f"{types.popitem()[1]}: windows that differ from layer to layer are not supported")
        return self.value(config, "sliding_window") if "sliding_attention" in types else None

    def _window_types(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Kinds of attention that occur, each with the field that says so."""
        if listed := config.get("layer_types"):
            return dict.fromkeys(listed, "layer_types")
        size = self.value(config, "sliding_window") if self.has_window else None
        if size is None or self.value(config, "use_sliding_window") is False:
            return {"full_attention": "sliding_window"}
        first = self.value(config, "max_window_layers") or 0
        found = {"full_attention": "max_window_layers"} if first > 0 else {}
        if first < config.get("num_hidden_layers", first + 1):
            found["sliding_attention"] = "max_window_layers"
        return found


_plugged_in: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family of a plug-in known in this process.

    Raises:
        TypeError: another one has its `model_type`.
    """
    _check_new(family, known())
    _plugged_in[family.model_type] = family


def _check_new(family: Family, others: Mapping[str, Family]) -> None:
    if others.get(family.model_type, family) != family:
        raise TypeError(f"family '{family.model_type}' exists already, and is another")


def known() -> dict[str, Family]:
    """All families by `model_type`."""
    return built_in() | _packaged()[0] | _plugged_in


def broken() -> dict[str, str]:
    """The families of installed packages that could not be loaded, each with the reason."""
    return _packaged()[1]


def families_in(module: object) -> Iterator[Family]:
    """The families that a module defines or imports."""
    yield from (value for value in vars(module).values() if isinstance(value, Family))


@cache
def built_in() -> dict[str, Family]:
    """The families of this repository, one a file of `bench/families`."""
    folder = bench.families
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    return {family.model_type: family for module in modules for family in families_in(module)}


@cache
def _packaged() -> tuple[dict[str, Family], dict[str, str]]:
    """What entry points of the group `leanboard.families` give: families, and reasons why others could not be had."""
    families: dict[str, Family] = {}
    problems: dict[str, str] = {}
    for point in entry_points(group="leanboard.families"):
        try:
            family = point.load()
            if not isinstance(family, Family):
                raise TypeError(f"{point.value} is no bench.family.Family")
            _check_new(family, built_in() | families)
            families[family.model_type] = family
        except Exception as error:  # a plug-in may fail in any way; it is listed, and the others go on
            problems[point.name] = f"{type(error).__name__}: {error}"
    return families, problems


def default() -> Family:
    """The family of a shape that names none."""
    return built_in()[DEFAULT]


def of_type(model_type: str) -> Family | None:
    """The family of a `model_type`, stock or lean; None where it is not known."""
    return known().get(model_type.removeprefix(LEAN))


def of_config(config: Mapping[str, Any], where: object = "config.json") -> Family:
    """The family of a model, from the content of its config.json.

    Raises:
        UsageError: a family that is not known, or a model that its table cannot describe; the sentence begins with
            `where` and names the field.
    """
    for name, what in _beyond_tables(config):
        raise UsageError(f"{where}: {name}: {what} not supported")
    model_type = str(config.get("model_type", DEFAULT))
    family = of_type(model_type)
    if family is None:
        lost = "".join(f"; family {name} could not be loaded ({why})" for name, why in broken().items())
        names = ", ".join(known())
        raise UsageError(f"{where}: model_type: '{model_type}' is of no known family; known are {names}{lost}")
    try:
        family.window(config)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except (KeyError, TypeError) as error:
        raise UsageError(f"{where}: layer_types, sliding_window, max_window_layers: {error}") from error
    return family


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
OTHER_SENSES = ("vision_config", "audio_config", "text_config", "vision_tower")
PARALLEL = ("use_parallel_residual", "parallel_attn", "parallel_block")


def _beyond_tables(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of config.json that speak of what no table can say, and what that is."""
    yield from ((name, "mixtures of experts are") for name in EXPERTS if (config.get(name) or 0) not in (0, 1))
    yield from ((name, "models with parts for images or sound are") for name in OTHER_SENSES if config.get(name))
    yield from ((name, "blocks whose attention and MLP run in parallel are") for name in PARALLEL if config.get(name))
    yield from ((name, "attention sinks are") for name, value in config.items() if "sink" in name and value)
