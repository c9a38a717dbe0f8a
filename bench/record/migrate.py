"""Convert records of older schema versions to today's form when they are read; files are never rewritten for it.

A new field with a default needs nothing here. For any other change of the schema raise `SCHEMA_VERSION`, add a step
below, and add a record of the old form to `tests/data/old_records/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.errors import RecordError
from bench.record.keys import measure_key
from bench.record.schema import SCHEMA_VERSION

Step = Callable[[dict[str, Any]], dict[str, Any]]

NO_INGREDIENTS = ("chance", "description", "headline", "windows")
"""Fields of a task that were ingredients of version 1's keys, though they change no value."""


def rekeyed(data: dict[str, Any]) -> dict[str, Any]:
    """A measurement of version 1 with the key that version 2 gives it; a checkpoint keeps its key.

    Raises:
        RecordError: the ingredients do not give the old key, so they are not trusted to give the new one.
    """
    if data.get("kind") != "measure":
        return data
    parts, key = data.get("ingredients"), data.get("key")
    task = parts.get("task") if isinstance(parts, dict) else None
    if not isinstance(parts, dict) or not isinstance(task, dict):
        raise RecordError("field 'ingredients.task' is missing")
    expected = measure_key(parts, 1)
    if key != expected:
        raise RecordError(f"field 'key' is {key}, but its ingredients give {expected}")
    kept = {name: value for name, value in task.items() if name not in NO_INGREDIENTS}
    return data | {"ingredients": (new := parts | {"task": kept}), "key": measure_key(new, 2), "former_key": key}


STEPS: dict[int, Step] = {1: rekeyed}
"""Version -> function from its JSON to the next version's."""


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a record in the form of `SCHEMA_VERSION`, one step after the other.

    Raises:
        RecordError: it is newer than that, or older than any version that can be brought forward.
    """
    version = data["schema_version"]
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"field 'schema_version' is {version}, newer than the {SCHEMA_VERSION} that this leanboard reads; update "
            "leanboard"
        )
    for old in range(version, SCHEMA_VERSION):
        if old not in STEPS:
            raise RecordError(f"field 'schema_version' is {version}, older than any that this leanboard reads")
        data = {**STEPS[old](data), "schema_version": old + 1}
    return data
