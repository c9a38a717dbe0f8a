"""The interval of a speed-up, in simulated sessions whose truth is known."""

from typing import Any

import numpy as np
import pytest

from bench.measure.generation.statistics import interval_of_median, ratio_of_rounds

SESSIONS = 200
ROUNDS = 6


def session(random: np.random.Generator, drift: str, ratio: float = 1.0) -> Any:
    """Seconds of the dense and the measured model, A-B-B-A, on a machine that drifts and now and then has a hiccup."""
    turns = np.arange(2 * ROUNDS)
    slower = {
        "none": 0 * turns,
        "trend": random.normal(0, 0.02) * turns,
        "walk": random.normal(0, 0.01, 2 * ROUNDS).cumsum(),
        "waves": 0.1 * np.sin(turns / random.uniform(2, 10) + random.uniform(0, 6)),
    }[drift]
    hiccups = (random.random(2 * ROUNDS) < 0.05) * random.exponential(0.2, 2 * ROUNDS)
    seconds = np.exp(slower + random.normal(0, 0.02, 2 * ROUNDS) + hiccups).reshape(ROUNDS, 2)
    seconds[1::2] = seconds[1::2, ::-1]
    return ratio * seconds[:, 0], seconds[:, 1]


@pytest.mark.parametrize("drift", ["none", "trend", "walk", "waves"])
def test_dense_against_dense_the_interval_has_one_in_it(drift: str) -> None:
    random = np.random.default_rng(7)
    intervals = [ratio_of_rounds(*session(random, drift))[1] for _ in range(SESSIONS)]
    assert np.mean([low <= 1.0 <= high for low, high in intervals]) >= 0.93


def test_a_real_speed_up_is_seen() -> None:
    random = np.random.default_rng(7)
    found = [ratio_of_rounds(*session(random, "walk", 1.3)) for _ in range(SESSIONS)]
    assert np.median([value for value, _ in found]) == pytest.approx(1.3, rel=0.01)
    assert np.mean([low > 1.0 for _, (low, _) in found]) > 0.9
    assert np.mean([low <= 1.3 <= high for _, (low, high) in found]) >= 0.93


def test_drift_cancels_within_a_round() -> None:
    drift = np.array([1.0, 2.0, 4.0, 8.0])
    assert ratio_of_rounds(list(2 * drift), list(drift)) == (2.0, (2.0, 2.0))


def test_the_interval_holds_the_median_and_never_changes() -> None:
    values = [1.0, 1.1, 0.9, 1.3, 1.2, 1.05]
    low, high = interval_of_median(values)
    assert min(values) <= low < 1.075 < high <= max(values)
    assert interval_of_median(values) == (low, high)
    assert interval_of_median([2.0]) == (2.0, 2.0)
