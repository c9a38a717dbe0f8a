"""Keys: what was computed, as a hash of everything that changes it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_SCHEMA = 1


def digest(ingredients: Mapping[str, Any]) -> str:
    """16 hexadecimal digits (64 bits of SHA-256) over the canonical JSON of `ingredients`.

    Equal content gives equal keys whatever the order of mappings.

    Raises:
        ValueError: a value is not JSON, or is not finite.
    """
    text = json.dumps({"key_schema": KEY_SCHEMA, **ingredients}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
