"""Records of older schema versions, brought to today's form as they are read; files are never rewritten for it.

A field that is added with a default needs nothing here. Whatever else changes the schema raises `SCHEMA_VERSION` and
adds a step below, and a record as it was goes into `tests/data/old_records/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.errors import RecordError
from bench.record.schema import SCHEMA_VERSION

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: dict[int, Step] = {}
"""Version -> what makes the next version's JSON of it. None yet: version 1 has only gained fields with defaults."""


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
