"""What is asked of what a method says of itself: metadata, settings, presets, card.

A check gets the trial and gives the sentence that says what was found; it raises `Failed` where the method does not do,
`NotAsked` where the question makes no sense for it.
"""

from __future__ import annotations

import re
from typing import Any

from bench.blocks.recoveries import resolve_recovery
from bench.conformance.trial import Trial
from bench.errors import UsageError
from bench.method import Preset
from bench.registry import BUILT_IN

CARD = ("(Paper|Source)", "Faithful", "Published")
"""What a card of this house begins paragraphs with."""


class Failed(Exception):
    """The method does not do what the check asks; the message is the sentence that says so."""


class NotAsked(Exception):
    """The check makes no sense for this method; the message says why."""


def metadata(trial: Trial) -> str:
    """Title, config fields with default and description (`bench.registry` refuses the rest), and what it needs."""
    traits, fields = trial.traits, trial.entry.cls.Config.model_fields
    if not traits.title or not trial.entry.cls.version:
        raise Failed("traits.title and version must not be empty")
    if "training" in traits.needs and "steps" not in fields:
        raise Failed("it trains, so its Config needs the field 'steps'; derive it from TrainingConfig")
    without = [name for name, info in fields.items() if info.is_required() or not info.description]
    if without:
        raise Failed(f"Config.{without[0]} needs a default and a description")
    return f"{len(fields)} fields, each with default and description"


def unknown_key(trial: Trial) -> str:
    name = next(iter(trial.entry.cls.Config.model_fields), "ratio") + "_"
    _refused(trial, name, 1)
    return f"'{name}' is refused"


def bad_values(trial: Trial) -> str:
    """Every field refuses a value of another kind and the numbers just outside its bounds."""
    count = 0
    for name, info in trial.entry.cls.Config.model_fields.items():
        values: list[Any] = [object()]
        for bound in info.metadata:
            for kind, step in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
                if isinstance(limit := getattr(bound, kind, None), int | float):
                    values.append(limit + step)
        for value in values:
            _refused(trial, name, value)
            count += 1
    if not count:
        raise NotAsked("the method has no settings")
    return f"{count} values are refused, each with a sentence that names the field"


def presets(trial: Trial) -> str:
    found = trial.entry.presets()
    for name, preset in found.items():
        trial.entry.config(preset)
        resolve_recovery(preset.recovery, f"preset {name}")
    if trial.entry.origin == BUILT_IN:
        if "quick" not in found:
            raise Failed("a method of this house needs a preset 'quick'")
        _check_card(trial.entry.card() or "", published=bool(trial.traits.paper))
    return f"valid: {', '.join(found)}"


def _check_card(card: str, published: bool) -> None:
    if not card.startswith("# "):
        raise Failed("a method of this house needs a card.md that begins with a title")
    for part in CARD if published else ():
        if not re.search(rf"^(## |\*\*){part}", card, re.MULTILINE):
            raise Failed(f"card.md: nothing stands under '{part}', which the card of a published method says")


def _refused(trial: Trial, field: str, value: Any) -> None:
    try:
        trial.entry.config(Preset(description=""), {field: value})
    except UsageError as error:
        if field in str(error):
            return
        raise Failed(f"config: {field}={value!r} is refused without naming the field: {error}") from error
    raise Failed(f"config: {field}={value!r} is not refused")
