"""Recoveries: training that suits any compressed model, chosen in a suite or a preset. Nothing here imports torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.blocks.settings import GroupedRecovery, LoraRecovery
from bench.errors import unknown
from bench.method import Context, MethodConfig
from bench.yamlfile import validated

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Recovery:
    """Its settings, and the module whose `recover(model, ctx, settings)` does it (imported when it is needed).

    `version` is bumped whenever a number the recovery leads to may change; it is part of every key.
    """

    settings: type[MethodConfig]
    module: str
    version: str


RECOVERIES = {
    "lora": Recovery(LoraRecovery, "bench.blocks.lora", "1"),
    "grouped": Recovery(GroupedRecovery, "bench.blocks.grouped", "1"),
}


def resolve_recovery(wanted: Mapping[str, Any] | None, where: str) -> dict[str, Any] | None:
    """`wanted`, {name: …, its fields}, with every setting filled in, as plain JSON values; None stays None.

    Raises:
        UsageError: an unknown recovery or setting, or a value out of range; the sentence begins with `where`.
    """
    if wanted is None:
        return None
    name, fields = _parts(wanted)
    if name not in RECOVERIES:
        raise unknown("recovery", name, ["none", *RECOVERIES], where)
    settings = validated(RECOVERIES[name].settings, fields, where)
    return {"name": name, "version": RECOVERIES[name].version, **settings.model_dump(mode="json")}


def load_recovery(resolved: Mapping[str, Any]) -> Callable[[PreTrainedModel, Context], PreTrainedModel]:
    """The function that carries out what `resolve_recovery` gave."""
    name, fields = _parts(resolved)
    recovery = RECOVERIES[name]
    settings = recovery.settings.model_validate({k: value for k, value in fields.items() if k != "version"})
    module = importlib.import_module(recovery.module)

    def recover(model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        recovered: PreTrainedModel = module.recover(model, ctx, settings)
        return recovered

    return recover


def _parts(recovery: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(recovery.get("name", "")), {key: value for key, value in recovery.items() if key != "name"}
