"""Keys: the same for the same content, different for any difference."""

import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.record.keys import artifact_key, measure_key

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=5)


def shuffled(value: Any) -> Any:
    """The same content with every mapping in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        random.Random(len(items)).shuffle(items)
        return {key: shuffled(inner) for key, inner in items}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@given(MAPPINGS)
def test_order_does_not_matter(content: dict[str, Any]) -> None:
    assert measure_key(content) == measure_key(shuffled(content))
    assert len(measure_key(content)) == 16
    assert int(measure_key(content), 16) >= 0


@given(MAPPINGS, st.text(min_size=1, max_size=6), VALUES)
def test_any_change_changes_the_key(content: dict[str, Any], name: str, value: Any) -> None:
    assume(name not in content or repr(content[name]) != repr(value))
    assume(not (name in content and content[name] == value))
    assert measure_key(content) != measure_key(content | {name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        measure_key({"a": value})


def test_a_key_is_the_same_in_every_process() -> None:
    """Committed records are found again by their keys: this one must never change without a new key schema."""
    parts = {"b": [1, 2.5, None], "a": {"y": "é", "x": True}}
    assert artifact_key(parts) == measure_key(parts, 1) == "2a7f73f444fffbb3"
    assert measure_key(parts) == measure_key(parts, 2) == "8754b7c7adf8b367"
    code = "from bench.record.keys import measure_key; print(measure_key({'a': 1, 'b': {'c': 2, 'd': 3}}))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert keys == {measure_key({"b": {"d": 3, "c": 2}, "a": 1}) + "\n"}
