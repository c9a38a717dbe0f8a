"""Paired statistics against closed forms, brute force and simulation."""

import time

import numpy as np
import pytest

from bench.report import stats
from bench.report.build import build
from bench.report.stats import mcnemar, mean_difference, window_difference
from tests.record.records import accuracy, artifact, perplexity
from tests.report.boards import PAIR


def test_mcnemar_is_the_binomial_test_on_discordant_items() -> None:
    assert mcnemar("1111100000", "1111100000") == 1.0
    assert mcnemar("11111110", "00000001") == pytest.approx(2 * (8 + 1) / 2**8)  # 7 of 8 discordant items
    assert mcnemar("1" * 50 + "0", "0" * 50 + "1") < 1e-12


def test_the_interval_of_a_mean_is_that_of_the_items() -> None:
    items = np.random.default_rng(0).normal(0.3, 1.0, 400)
    found = mean_difference([items])
    error = items.std() / 20
    assert found.value == pytest.approx(items.mean())
    assert found.low == pytest.approx(items.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(items.mean() + 1.96 * error, abs=0.1 * error)
    assert found.p < 0.001


def test_every_task_weighs_the_same() -> None:
    found = mean_difference([np.ones(10), np.zeros(1000)])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_what_cancels_between_tasks_counts_as_no_difference() -> None:
    tenths = [np.array([1.0] * 3 + [0.0] * 7), np.array([-1.0] * 3 + [0.0] * 7)] * 3
    found = mean_difference([np.full(10, items.mean()) for items in tenths])
    assert (found.value, found.low, found.high, found.p) == (pytest.approx(0.0), 0.0, 0.0, 1.0)


def test_no_difference_is_found_where_there_is_none() -> None:
    draws = np.random.default_rng(1)
    hits = [mean_difference([draws.integers(-1, 2, 200).astype(float)]).p < 0.05 for _ in range(300)]
    assert np.mean(hits) <= 0.09


def test_windows_that_hang_together_widen_the_interval() -> None:
    draws = np.random.default_rng(2)
    independent = draws.normal(0, 1, 512)
    together = np.repeat(draws.normal(0, 1, 64), 8)
    targets = np.full(512, 1.0)
    width = [f.high - f.low for f in (window_difference(independent, targets), window_difference(together, targets))]
    assert width[0] == pytest.approx(2 * 1.96 / np.sqrt(512), rel=0.15)
    assert width[1] > 1.8 * width[0]


@pytest.mark.parametrize("n", [1, 2, 5, 27, 100])
def test_blocks_of_windows_are_drawn_whole_but_for_the_last(n: int) -> None:
    draws = np.random.default_rng(4)
    differences, targets = draws.normal(0, 1, n), draws.integers(1, 9, n).astype(float)
    length = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(stats.SEED).integers(n, size=(stats.RESAMPLES, -(-n // length)))
    means = []
    for row in starts:
        picks = [(start + i) % n for start in row for i in range(length)][:n]
        means.append(differences[picks].sum() / targets[picks].sum())
    found = window_difference(differences, targets)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_full_tasks_are_compared_within_hundredths_of_a_second() -> None:
    draws = np.random.default_rng(5)
    tasks = [draws.integers(-1, 2, n).astype(float) for n in (3270, 1838, 10042, 1267, 2376, 1172, 500)]
    start = time.process_time()
    mean_difference(tasks)
    window_difference(draws.normal(0, 1, 2300), np.full(2300, 127.0))
    assert time.process_time() - start < 0.3


def test_the_same_records_give_the_same_numbers() -> None:
    items = np.random.default_rng(3).normal(0, 1, 50)
    assert mean_difference([items]) == mean_difference([items])
    assert window_difference(items, np.ones(50)) == window_difference(items, np.ones(50))


def _measured(method: str, nll: list[float], bits: str, **who: object) -> list:
    made = artifact(method, **who)
    windows = {"windows": {"nll": nll, "targets": [10] * len(nll)}}
    return [
        made,
        perplexity(made, 10.0).model_copy(update={"evidence": perplexity(made, 10.0).evidence.model_validate(windows)}),
        *(
            record.model_copy(update={"evidence": record.evidence.model_validate({"items": {variant: bits}})})
            for task, variant in (("piqa", "acc"), ("hellaswag", "acc_norm"))
            for record in [accuracy(made, f"{task}@0shot", 0.5, (variant,))]
        ),
    ]


def test_rows_are_compared_with_the_controls_of_their_size_and_recovery() -> None:
    records = [
        *_measured("random", [40.0, 50.0, 60.0], "0000"), *_measured("saap", [30.0, 40.0, 50.0], "1100"),
        *_measured("saap", [20.0, 30.0, 40.0], "1111", recovery="lora"),
        *_measured("random", [1.0, 1.0, 1.0], "1111", target="params=0.5"),
    ]
    board = build(records, [PAIR])
    found = {pair.metric: pair for pair in board.pairs}
    assert {(pair.row.method, pair.row.recovery, pair.control) for pair in board.pairs} == {("saap", "none", "random")}
    assert found["wikitext2.ppl_token@2048/limit4"].difference.value == pytest.approx(-1.0)
    assert found["wikitext2.ppl_token@2048/limit4"].n == 3
    assert found["pair.mean@0shot"].difference.value == pytest.approx(0.5)
    assert found["pair.mean@0shot"].n == 8
