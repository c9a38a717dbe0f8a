"""The modules of a decoder, found by the table of its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import MethodError, UsageError
from bench.family import Family, of_type
from bench.shape import Shape

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Block:
    """The seven projections (`nn.Linear`, weight [out, in]) and two norms of one decoder block."""

    index: int
    family: Family
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    attention_norm: nn.Module
    mlp_norm: nn.Module

    def linears(self) -> dict[str, nn.Linear]:
        """The projections by name, in the order of execution."""
        modules = (self.q, self.k, self.v, self.o, self.gate, self.up, self.down)
        return {table.name: module for table, module in zip(self.family.projections, modules, strict=True)}

    def linear(self, projection: str) -> nn.Linear:
        """The projection of that name, one of `PROJECTIONS`."""
        return self.linears()[projection]


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model that was loaded here.

    Raises:
        UsageError: it is of no known family.
    """
    family = of_type(model.config.model_type)
    if family is None:
        raise UsageError(f"model_type: '{model.config.model_type}' is of no known family")
    return family


def blocks_of(model: PreTrainedModel) -> list[Block]:
    """The decoder blocks of `model`, first to last.

    Raises:
        MethodError: some of their projections are factored, so there are no matrices to hand out.
    """
    if shape_of(model).factors:
        raise MethodError("the model has low-rank factors, and the method needs plain matrices: give it a dense model")
    family = family_of(model)
    paths = [*(projection.path for projection in family.projections), family.attention_norm, family.mlp_norm]
    return [
        Block(i, family, *(layer.get_submodule(path) for path in paths)) for i, layer in enumerate(layers_of(model))
    ]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of the decoder blocks, first to last."""
    return list(model.get_submodule(family_of(model).layers))


def bottlenecks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The bottlenecks behind the MLPs of a model that has them, first to last: `down` and `up`, `nn.Linear` both."""
    return [layer.get_submodule(bottleneck_path(family_of(model))) for layer in layers_of(model)]


def bottleneck_path(family: Family) -> str:
    """Where the bottleneck of a decoder block lies within it: in the module of the MLP."""
    return f"{family.projections[-1].path.rpartition('.')[0]}.bottleneck"


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    """The token embedding, weight [vocab, hidden]."""
    return model.get_submodule(family_of(model).embedding)


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The language-model head, weight [vocab, hidden]; the same parameter as the embedding where they are tied."""
    return model.get_submodule(family_of(model).head)


def final_norm_of(model: PreTrainedModel) -> nn.Module:
    """The norm before the head."""
    return model.get_submodule(family_of(model).final_norm)


def shape_of(model: PreTrainedModel) -> Shape:
    """The widths of `model`, read from its config."""
    return Shape.of(model.config.to_dict())


def window_of(model: PreTrainedModel) -> int | None:
    """How many tokens back attention reaches, the token itself included; None where it reaches all."""
    return family_of(model).window(model.config.to_dict())
