"""The Pareto front of a scatter plot."""

import pytest

from bench.record.schema import MeasureRecord
from bench.report.build import build
from bench.report.plots.scatter import front
from tests.report.boards import PAIR, cells
from tests.report.figures import scatter


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The methods on each front that was drawn."""
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        "bench.report.plots.scatter._draw_front",
        lambda axes, best: drawn.append([point.row.identity.method for point in best]),
    )
    return drawn


@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_the_front_is_what_nothing_beats_in_both(grain: float) -> None:
    places = {"a": (0.0, 10.0), "b": (20.0, 30.0), "c": (20.0, 25.0), "d": (35.0, 90.0), "e": (30.0, 95.0)}
    records = [
        r
        for name, (x, y) in places.items()
        for r in cells(f"method_{name}", y, target=f"params={x / 100 + 0.01}", removed=x / 100)
    ]
    points, _ = scatter(build(records, [PAIR]), "size")
    assert [point.row.identity.method[-1] for point in front(points, 1, -1, grain)] == ["d", "c", "a"]
    assert [point.row.identity.method[-1] for point in front(points, -1, -1, grain)] == ["a"]
    assert [point.row.identity.method[-1] for point in front(points, 1, 1, grain)] == ["d", "e"]


def test_sizes_that_meet_one_target_are_one_size_on_the_front(fronts: list[list[str]]) -> None:
    places = {"saap": (0.2004, 90.0), "trawl": (0.1997, 30.0), "laser": (0.3498, 95.0)}
    records = [r for name, (x, y) in places.items() for r in cells(name, y, removed=x)]
    points, _ = scatter(build(records, [PAIR]), "size")
    assert fronts[-1] == ["laser", "trawl"]
    assert [point.row.identity.method for point in front(points, 1, -1, 0.0)] == ["laser", "saap", "trawl"]


@pytest.mark.parametrize("target", [0.2, 0.125, 0.35])
def test_rows_of_one_target_are_one_size_wherever_it_lies(target: float, fronts: list[list[str]]) -> None:
    places = {"saap": (target + 0.004, 90.0), "trawl": (target - 0.004, 30.0), "laser": (target + 0.15, 95.0)}
    scatter(build([r for name, (x, y) in places.items() for r in cells(name, y, removed=x)], [PAIR]), "size")
    assert fronts[-1] == ["laser", "trawl"]


def test_a_disturbed_speed_is_drawn_and_not_on_the_front(fronts: list[list[str]]) -> None:
    records = [*cells("random", 20.0, ratio=1.1), *cells("saap", 15.0, ratio=1.9)]
    shaken = [
        r.model_copy(update={"evidence": r.evidence.model_copy(update={"disturbed": "others used 1.8 of 2 cores"})})
        if isinstance(r, MeasureRecord) and r.method == "saap" and r.task.startswith("generate")
        else r
        for r in records
    ]
    for found, expected in ((records, ["saap"]), (shaken, ["random"])):
        points, _ = scatter(build(found, [PAIR]), "speed")
        assert len(points) == 2
        assert fronts[-1] == expected


def test_where_every_speed_was_disturbed_there_is_no_front() -> None:
    shaken = [
        r.model_copy(update={"evidence": r.evidence.model_copy(update={"disturbed": "others used 1.8 of 2 cores"})})
        if isinstance(r, MeasureRecord) and r.task.startswith("generate")
        else r
        for r in [*cells("random", 20.0, ratio=1.1), *cells("saap", 15.0, ratio=1.9)]
    ]
    points, _ = scatter(build(shaken, [PAIR]), "speed")
    assert len(points) == 2
