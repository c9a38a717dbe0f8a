"""Every metric is of a kind, and the kind says how it is recorded, checked, compared and shown."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.record.kinds import (
    ACCURACY,
    COST,
    GENERATION,
    KINDS,
    MEAN,
    PERPLEXITY,
    TEXT_BITS,
    UNKNOWN,
    form_of,
    kind_of,
    split,
)
from bench.record.kinds_compared import FLATTERY
from bench.record.schema import METRIC_ID
from bench.record.store import Store
from bench.registry import task_groups
from bench.report.build import build
from bench.report.cell import Cell
from bench.report.evidence import draw, scores_of
from bench.report.frame import Run, current
from bench.report.stats import block_length
from tests.record.records import artifact, windowed

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("folder", ["", "full", "serving", "saap-ablation"])
def test_every_column_of_the_committed_boards_is_of_a_kind(folder: str) -> None:
    """And every number in it in the unit and direction that the kind says."""
    board = build(Store(RESULTS / folder).read_all()[0], task_groups())
    columns = [column for column in board.columns if METRIC_ID.match(column.id)]
    assert len(columns) > 10
    assert [column.id for column in columns if column.kind is UNKNOWN] == []
    forms = {column.id: (form_of(column.id).unit, form_of(column.id).direction) for column in columns}
    assert {column.id: (column.unit, column.direction) for column in columns} == forms
    assert all(form_of(column.id).title for column in columns)


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("wikitext2.ppl_token@128/limit4", PERPLEXITY),
        ("c4.ppl_token@2048", PERPLEXITY),
        ("piqa.acc_norm@0shot", ACCURACY),
        ("commonsense7.signal_mean@0shot/boolq+piqa", MEAN),
        ("generate.peak_memory@hf/b1/p64/n128", GENERATION),
        ("cost.peak_memory", COST),
        ("piqa.accordion@0shot", UNKNOWN),
        ("ppl_token@128", UNKNOWN),
        ("piqa@0shot", UNKNOWN),
    ],
)
def test_a_metric_is_known_by_its_name_and_by_nothing_like_it(metric: str, kind: object) -> None:
    assert kind_of(metric) is kind


def test_no_two_kinds_have_the_same_metric() -> None:
    keys = [key for kind in KINDS for key in kind.metrics]
    assert len(keys) == len(set(keys))
    assert split("a.b@c/d") == ("a", "b", "c/d")


def test_quality_is_what_can_be_compared() -> None:
    for kind in KINDS:
        ranks_nothing = kind in (TEXT_BITS, FLATTERY)
        assert (kind.is_quality or ranks_nothing) == (kind.evidence is not None or kind.over is not None)
        assert not kind.is_quality or (kind.gap.unit and kind.noun and kind.axis)
        assert all(name in kind.metrics or f"*.{split(name)[1]}" in kind.metrics for name in kind.first)


def test_neighbouring_windows_are_drawn_together_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = artifact("saap")
    record = windowed(made, "wikitext2@128", list(np.random.default_rng(0).normal(3, 0.1, 64)))
    rows, _ = current([made, record])
    [row] = rows
    scores = scores_of({0: Run(made, {record.task: record}, {})}, "wikitext2.ppl_token@128")
    assert scores is not None
    assert draw({row: scores}, "wikitext2.ppl_token@128")[row].units == -(-64 // block_length(64))
    monkeypatch.setattr("bench.record.kinds.KINDS", [replace(PERPLEXITY, has_neighbours=False)])
    assert draw({row: scores}, "wikitext2.ppl_token@128")[row].units == 64


def test_what_is_shown_of_an_uncertainty_is_decided_once() -> None:
    """Between seeds where there are several, else the interval, else the standard error."""
    all_three = Cell(10.0, stderr=1.0, interval=(9.0, 12.0), std=2.0)
    found = all_three.uncertainty
    assert found is not None
    assert (found.of, found.low, found.high, found.half) == ("standard deviation between seeds", 8.0, 12.0, 2.0)
    interval = Cell(10.0, stderr=1.0, interval=(9.0, 12.0)).uncertainty
    assert interval is not None
    assert (interval.of, interval.low, interval.high, interval.half) == ("95 % interval", 9.0, 12.0, None)
    error = Cell(10.0, stderr=1.0).uncertainty
    assert error is not None
    assert (error.of, error.half) == ("standard error", 1.0)
    assert Cell(10.0).uncertainty is None
    assert Cell(None, stderr=1.0).uncertainty is None
    assert Cell(10.0, stderr=3.0, std=4.0).interval95 == pytest.approx((10 - 1.96 * 5, 10 + 1.96 * 5))
    assert Cell(10.0, stderr=3.0, interval=(9.0, 12.0)).interval95 == (9.0, 12.0)
    assert math.isclose(PERPLEXITY.value(2.0), math.e**2)
