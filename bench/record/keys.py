"""Keys: what was computed, as a hash of everything that changes it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ARTIFACT_SCHEMA = 1
MEASURE_SCHEMA = 2
"""2: fields that only name, list or judge a task's numbers are no ingredients (`bench.task`)."""


def artifact_key(ingredients: Mapping[str, Any]) -> str:
    """The key of the checkpoint that is made from `ingredients`; raises as `digest` does."""
    return digest(ingredients, ARTIFACT_SCHEMA)


def measure_key(ingredients: Mapping[str, Any], schema: int = MEASURE_SCHEMA) -> str:
    """The key of the measurement that is made from `ingredients`; raises as `digest` does."""
    return digest(ingredients, schema)


def digest(ingredients: Mapping[str, Any], schema: int) -> str:
    """16 hexadecimal digits (64 bits of SHA-256) over the canonical JSON of `ingredients` and the schema of the key.

    Equal content gives equal keys whatever the order of mappings.

    Raises:
        ValueError: a value is not JSON, or is not finite.
    """
    text = json.dumps({"key_schema": schema, **ingredients}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
