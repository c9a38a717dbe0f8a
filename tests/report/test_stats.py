"""Paired statistics against closed forms, brute force and simulation."""

import time
from itertools import pairwise as neighbours

import numpy as np
import pytest

from bench.report import stats
from bench.report.stats import (
    ALPHA,
    Array,
    Difference,
    Drawn,
    above_chance,
    block_length,
    estimate,
    holm,
    mcnemar_all,
    pairwise,
    resample_items,
    resample_windows,
)
from tests.report.oracles import mcnemar


def of_items(*tasks: Array, name: str = "row") -> stats.Interval:
    """A row's estimate from [seeds, items] (or [items]) of each task."""
    scores = [np.atleast_2d(task) for task in tasks]
    return estimate(
        [Drawn(x.mean(axis=1), resample_items(x, f"task {i}"), x.shape[1]) for i, x in enumerate(scores)], name
    )


def of_windows(losses: Array, targets: Array) -> stats.Interval:
    n = len(losses)
    drawn = resample_windows(losses[None], targets, "text", block_length(len(losses)))
    return estimate([Drawn(np.array([losses.sum() / targets.sum()]), drawn, -(-n // block_length(n)))], "row")


def difference(a: stats.Interval, b: stats.Interval) -> Difference:
    return pairwise([a, b]).difference(0, 1)


def test_mcnemar_is_the_binomial_test_on_discordant_items() -> None:
    pairs = np.array(
        [[list(map(int, text)) for text in pair] for pair in (("11111110", "00000001"), ("10110010",) * 2)]
    )
    seven_of_eight, same = (mcnemar_all(pair.astype(float))[0, 1] for pair in pairs)
    assert seven_of_eight == pytest.approx(2 * (8 + 1) / 2**8)
    assert same == 1.0


def test_mcnemar_of_all_pairs_is_that_of_each() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (5, 40))
    found = mcnemar_all(bits.astype(float))
    texts = ["".join(map(str, row)) for row in bits]
    assert found == pytest.approx(np.array([[mcnemar(a, b) for b in texts] for a in texts]))


def test_the_interval_of_a_mean_is_that_of_the_items() -> None:
    items = np.random.default_rng(0).normal(0.3, 1.0, 400)
    found = difference(of_items(items), of_items(np.zeros(400)))
    error = items.std(ddof=1) / 20
    assert found.value == pytest.approx(items.mean())
    assert found.low == pytest.approx(items.mean() - 1.966 * error, abs=0.1 * error)
    assert found.high == pytest.approx(items.mean() + 1.966 * error, abs=0.1 * error)
    assert found.p < 0.001


def test_every_task_weighs_the_same() -> None:
    found = difference(of_items(np.ones(10), np.zeros(1000)), of_items(np.zeros(10), np.zeros(1000)))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_what_cancels_between_tasks_counts_as_no_difference() -> None:
    a, b = np.array([1.0] * 3 + [0.0] * 7), np.array([0.0] * 7 + [1.0] * 3)
    found = difference(of_items(a, a, a, b, b, b), of_items(b, b, b, a, a, a))
    assert (found.value, found.p) == (0.0, 1.0)


def false_findings(rows: list[stats.Interval]) -> float:
    """How often two successive rows, which do not differ in truth, are told apart."""
    return float(np.mean([difference(a, b).p < ALPHA for a, b in zip(rows[::2], rows[1::2], strict=True)]))


def test_no_suite_mean_differs_where_no_model_does() -> None:
    draws = np.random.default_rng(1)
    tasks = [(draws.random((1000, 2, 150)) < draws.random((1000, 1, 150))).reshape(2000, 150) for _ in range(4)]
    drawn = [(x.mean(axis=1), resample_items(x.astype(float), str(i))) for i, x in enumerate(tasks)]
    rows = [estimate([Drawn(v[i : i + 1], d[i : i + 1], 150) for v, d in drawn], str(i)) for i in range(2000)]
    assert false_findings(rows) <= 0.055


def test_no_task_differs_where_no_model_does() -> None:
    draws = np.random.default_rng(2)
    bits = (draws.random((2000, 2, 300)) < draws.random(300)).astype(float)
    assert np.mean([mcnemar_all(pair)[0, 1] < ALPHA for pair in bits]) <= 0.055


@pytest.mark.parametrize("windows", [16, 148])
def test_no_perplexity_differs_where_no_model_does(windows: int) -> None:
    draws = np.random.default_rng(3)
    losses = 127 * (draws.normal(3, 1, windows) + draws.normal(0, 0.2, (2000, windows)))
    drawn = resample_windows(losses, np.full(windows, 127.0), "text", block_length(windows))
    values, units = losses.mean(axis=1) / 127, -(-windows // block_length(windows))
    rows = [estimate([Drawn(v[None], d[None], units)], "row") for v, d in zip(values, drawn, strict=True)]
    assert false_findings(rows) <= 0.055


def test_no_method_differs_where_only_its_seeds_do() -> None:
    draws = np.random.default_rng(4)
    ease, seeds = draws.normal(0, 1, (500, 1, 1, 200)), draws.normal(0, 0.5, (500, 2, 3, 1))
    bits = (draws.normal(0, 1, (500, 2, 3, 200)) + ease + seeds > 0).astype(float)
    values, drawn = bits.mean(axis=3).reshape(1000, 3), resample_items(bits.reshape(-1, 200), "task")
    drawn = drawn.reshape(1000, 3, -1)
    rows = [estimate([Drawn(values[i], drawn[i], 200)], str(i)) for i in range(1000)]
    assert false_findings(rows) <= 0.055
    one_each = [mcnemar_all(pair[:, 0])[0, 1] < ALPHA for pair in bits]
    assert np.mean(one_each) > 0.2, "one seed each would have told checkpoints apart, and not methods"


def test_pairing_finds_what_two_separate_intervals_do_not() -> None:
    draws = np.random.default_rng(5)
    paired = unpaired = 0
    for _ in range(300):
        ease = draws.normal(0, 2, 300)
        a, b = (draws.normal(0, 0.5, (2, 300)) + ease + np.array([[0.2], [0.0]]) > 0).astype(float)
        paired += mcnemar_all(np.stack([a, b]))[0, 1] < ALPHA
        error = np.sqrt(a.var() / 300 + b.var() / 300)
        unpaired += abs(a.mean() - b.mean()) > 1.96 * error
    assert paired > unpaired + 30


@pytest.mark.parametrize("unit", ["items", "windows"])
def test_a_bootstrap_in_pairs_finds_what_one_of_two_separate_samples_does_not(unit: str) -> None:
    draws = np.random.default_rng(9)
    ease, own = draws.normal(0, 2, (300, 1, 128)), draws.normal(0, 0.5, (300, 2, 128))
    scores = (ease + own + np.array([[0.3], [0.0]])).reshape(600, 128)
    if unit == "items":
        drawn, units = resample_items((scores > 0).astype(float), "task"), 128
        values = (scores > 0).mean(axis=1)
    else:
        drawn, units = resample_windows(scores, np.ones(128), "text", block_length(128)), -(-128 // block_length(128))
        values = scores.mean(axis=1)
    rows = [estimate([Drawn(v[None], d[None], units)], "row") for v, d in zip(values, drawn, strict=True)]
    separate = [
        abs(a.value - b.value) > 1.96 * np.sqrt(a.draws.var() + b.draws.var())
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    ]
    paired = np.mean([difference(a, b).p < ALPHA for a, b in zip(rows[::2], rows[1::2], strict=True)])
    assert paired > 0.3
    assert paired > np.mean(separate) + 0.2


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    draws = np.random.default_rng(6)
    families = [min(holm(draws.random(10).tolist())) < ALPHA for _ in range(4000)]
    assert np.mean(families) <= 0.058


def test_windows_that_hang_together_widen_the_interval() -> None:
    draws = np.random.default_rng(2)
    targets, none = np.full(512, 1.0), np.zeros(512)
    together = np.repeat(draws.normal(0, 1, 64), 8)
    found = [difference(of_windows(x, targets), of_windows(none, targets)) for x in (draws.normal(0, 1, 512), together)]
    width = [f.high - f.low for f in found]
    assert width[0] == pytest.approx(2 * 1.96 / np.sqrt(512), rel=0.15)
    assert width[1] > 1.8 * width[0]


@pytest.mark.parametrize("n", [1, 2, 5, 27, 100])
def test_blocks_of_windows_are_drawn_whole_but_for_the_last(n: int) -> None:
    draws = np.random.default_rng(4)
    losses, targets = draws.normal(0, 1, n), draws.integers(1, 9, n).astype(float)
    length = block_length(n)
    starts = np.random.default_rng([stats.SEED, n, *b"text"]).integers(n, size=(stats.RESAMPLES, -(-n // length)))
    means = []
    for row in starts:
        picks = [(start + i) % n for start in row for i in range(length)][:n]
        blocks = [picks[first : first + length] for first in range(0, n, length)]
        assert all(b == (a + 1) % n for block in blocks for a, b in neighbours(block))
        means.append(losses[picks].sum() / targets[picks].sum())
    assert resample_windows(losses[None], targets, "text", length)[0] == pytest.approx(np.array(means))


def test_the_variance_of_a_mean_over_seeds_is_without_bias() -> None:
    draws = np.random.default_rng(7)
    rows = [np.repeat(draws.normal(0, 1, (3, 1)), 50, axis=1) for _ in range(100)]  # items that are all alike
    found = [of_items(row, name=str(i)) for i, row in enumerate(rows)]
    assert [row.seed_variance for row in found] == pytest.approx([row[:, 0].var(ddof=1) / 3 for row in rows])
    assert np.mean([row.draws.var() / row.seed_variance for row in found]) == pytest.approx(1, rel=0.02)


def test_signal_is_an_exact_binomial_test() -> None:
    assert above_chance(10, 10, 0.5) == pytest.approx(2**-10)
    assert above_chance(0, 10, 0.25) == 1.0
    assert above_chance(42, 100, 0.6217) > 0.99
    for right in (5, 6):
        assert above_chance(right, 100, 0.0) == pytest.approx(mcnemar("1" * right, "0" * right))
    assert above_chance(5, 100, 0.0) > 0.05 > above_chance(6, 100, 0.0)


@pytest.mark.perf
def test_full_tasks_of_a_whole_board_are_compared_within_seconds() -> None:
    draws = np.random.default_rng(5)
    start = time.process_time()
    rows = [draws.integers(0, 2, (20, n)).astype(float) for n in (3270, 1838, 10042, 1267, 2376, 1172, 500)]
    tasks = [(x.mean(axis=1), resample_items(x, str(i)), x.shape[1]) for i, x in enumerate(rows)]
    found = [estimate([Drawn(v[i : i + 1], d[i : i + 1], n) for v, d, n in tasks], str(i)) for i in range(20)]
    assert pairwise(found).p.shape == (20, 20)
    assert time.process_time() - start < 4


def test_the_same_records_give_the_same_numbers() -> None:
    items = np.random.default_rng(3).normal(0, 1, 50)
    assert difference(of_items(items), of_items(-items)) == difference(of_items(items), of_items(-items))
