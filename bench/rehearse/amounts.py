"""How a rehearsal shrinks settings: amounts are capped, ranges of blocks and widths scaled, everything else stays.

One table of the field names that methods and recoveries share. Fields that it does not name keep their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.blocks.decomposition import DecompositionConfig
from bench.blocks.groups import pruned_layers
from bench.blocks.recoveries import RECOVERIES
from bench.method import MethodConfig
from bench.shape import Shape

CAPS: Mapping[str, float] = {
    "batch_size": 2,
    "calibration_samples": 4,
    "evaluate_every": 1,
    "finetune_batch_size": 2,
    "holdout": 2,
    "iterative_steps": 2,
    "micro_batch": 2,
    "n_samples": 2,
    "search_steps": 2,
    "seq_len": 32,
    "spans": 2,
    "steps": 2,
    "sweeps": 3,
    "warmup_steps": 1,
}
"""The most of each. `steps` is set where a setting counts in epochs, which then have no say."""
TRIED = 2
"""Of values that are tried one after another, so many."""
LISTS = ("ranks", "rhos", "starts")
LENGTHS = ("max_length",)
TOKENS, MOST_TOKENS = 2, 256
"""A small vocabulary takes twice as many tokens for English text, by count; and the most that are taken."""


@dataclass(frozen=True)
class Scale:
    """The real model and its stand-in."""

    real: Shape
    small: Shape

    def layers(self, first: int, last: int) -> tuple[int, int]:
        """The range [first, last) of the real model's blocks in the same place of the stand-in's, at least one block.

        What reaches beyond the real model reaches beyond the stand-in.
        """
        n, m = len(self.real.blocks), len(self.small.blocks)
        start, end = (int(block * m / n + 0.5) for block in (first, last))
        if last > n:
            return min(start, m), m + last - n
        return (start, end) if start < end else (end - 1, end) if end else (0, 1)

    def rank(self, rank: int) -> int:
        return max(1, round(rank * self.small.hidden / self.real.hidden))

    def channels(self, count: int) -> int:
        return max(1, round(count * self.small.blocks[0].channels / self.real.blocks[0].channels))


def shrunk(settings: MethodConfig, scale: Scale) -> dict[str, Any]:
    """The fields of `settings` that a rehearsal changes, with their new values.

    A cap that the settings refuse, as a plug-in's may, is left out.
    """
    given = settings.model_dump()
    changed: dict[str, Any] = {}
    for name, value in given.items():
        new = _shrunk(name, value, settings, scale)
        if new != value and _is_valid(settings, given | changed | {name: new}):
            changed[name] = new
    return changed


def shrunk_recovery(resolved: Mapping[str, Any] | None, scale: Scale) -> dict[str, Any] | None:
    """A resolved recovery with what a rehearsal changes in it, as a suite names it."""
    if resolved is None:
        return None
    fields = {name: value for name, value in resolved.items() if name not in ("name", "version")}
    settings = RECOVERIES[resolved["name"]].settings.model_validate(fields)
    return {"name": resolved["name"], **fields, **shrunk(settings, scale)}


def _shrunk(name: str, value: Any, settings: MethodConfig, scale: Scale) -> Any:
    if name == "layers" and value is None and not isinstance(settings, DecompositionConfig):
        usual = pruned_layers(None, len(scale.real.blocks))  # of a shallow model it would spare a larger share
        return scale.layers(usual.start, usual.stop)
    if name == "steps" and value is None:
        return CAPS[name]
    if value is None:
        return None
    if name == "layers":
        return scale.layers(*value)
    if name == "round_to":
        return scale.channels(value)
    if name in LISTS:
        tried = [scale.rank(rank) for rank in value] if name == "ranks" else value
        return tuple(dict.fromkeys((tried[0], tried[-1])))[:TRIED]
    if name in LENGTHS:
        return min(MOST_TOKENS, TOKENS * value)
    return min(value, CAPS[name]) if name in CAPS else value


def _is_valid(settings: MethodConfig, fields: Mapping[str, Any]) -> bool:
    try:
        type(settings).model_validate(fields)
    except ValidationError:
        return False
    return True
