"""Metrics that the report computes from the items of several records."""

from typing import Any

import pytest

from bench.record.schema import ArtifactRecord, Evidence, MeasureRecord
from bench.report.board import Board
from bench.report.build import build
from bench.task_group import TaskGroup
from tests.record.records import artifact, scored
from tests.report.boards import KNOWN, answers, dense, row

PAIR = TaskGroup(name="pair", kind="group", description="", members=("piqa.acc", "arc_easy.acc"))
FLIPS = "piqa.acc_flips@0shot/limit200"


def chosen(made: ArtifactRecord, bits: str, letters: str, task: str = "piqa@0shot/limit4") -> MeasureRecord:
    evidence = Evidence(items={"acc": bits, "acc_norm": bits}, chosen={"acc": letters})
    return scored(made, task, bits, ("acc", "acc_norm"), evidence=evidence)


def values(board: Board, method: str, seed: int | None = None) -> dict[str, float | None]:
    [found] = [row for row in board.rows if row.identity.method == method]
    return {id_: cell.value for id_, cell in found.cells.items() if "flips" in id_}


def test_items_flip_both_ways_and_answers_where_both_are_wrong_too() -> None:
    reference, made = artifact("dense", target="none", removed=0.0), artifact("random")
    board = build([reference, made, chosen(reference, "1100", "0123"), chosen(made, "1010", "0210")], [PAIR])
    flips, others = "piqa.acc_flips@0shot/limit4", "piqa.acc_answer_flips@0shot/limit4"
    assert values(board, "random") == {flips: 0.5, others: 0.75}
    assert values(board, "dense") == {flips: 0.0, others: 0.0}
    [cell] = [row.cells[flips] for row in board.rows if row.identity.method == "random"]
    assert (cell.n, cell.stderr) == (4, pytest.approx((0.25 / 3) ** 0.5))
    assert {column.direction for column in board.columns if "flips" in column.id} == {"lower"}


@pytest.mark.parametrize("changes", [{"data": "another text"}, {"engine": "accuracy/3"}])
def test_other_items_are_no_reference(changes: dict[str, Any]) -> None:
    reference, made = artifact("dense", target="none", removed=0.0), artifact("random")
    theirs, ours = scored(reference, "piqa@0shot/limit4", "1100"), scored(made, "piqa@0shot/limit4", "1010", **changes)
    assert values(build([reference, made, theirs, ours], []), "random") == {}
    assert values(build([made, ours], []), "random") == {}, "nor is there one without a dense run"


def test_a_seed_is_held_against_the_dense_models_own_or_its_first() -> None:
    def both(method: str, seed: int, bits: str, **who: Any) -> list[Any]:
        made = artifact(method, seed=seed, **who)
        return [made, scored(made, "piqa@0shot/limit4", bits)]

    own: dict[str, Any] = {"target": "none", "removed": 0.0}
    rows = [r for s in (0, 1, 2) for r in both("random", s, "1100")]
    board = build([*both("dense", 0, "0000", **own), *both("dense", 1, "1110", **own), *rows], [])
    [cell] = [row.cells["piqa.acc_flips@0shot/limit4"] for row in board.rows if row.identity.method == "random"]
    assert (cell.value, cell.seeds) == (pytest.approx((0.5 + 0.25 + 0.5) / 3), 3)


def ranked(arc_easy: float = 0.6) -> Board:
    """`near` moved less than `far` at the same accuracy: half of what `far` lost, it won elsewhere."""
    records = dense()
    right = {"piqa": answers(0.6), "arc_easy": answers(arc_easy)}
    records += [scored(records[0], f"{task}@0shot/limit200", bits) for task, bits in right.items()]
    for method, moved in (("near", 6), ("far", 90)):
        made = row(method, 0.1)
        records += made
        for task, bits in right.items():
            flipped = "".join("10"[int(bit)] if i < moved else bit for i, bit in enumerate(bits))
            records.append(scored(made[0], f"{task}@0shot/limit200", flipped))
    return build(records, [PAIR], KNOWN)


def test_flips_and_their_mean_are_ranked() -> None:
    board = ranked()
    mean = "pair.flips_mean@0shot/limit200"
    assert not any("answer_flips" in column.id for column in board.columns), "no chosen answers were kept"
    near, far = (next(row.identity for row in board.rows if row.identity.method == name) for name in ("near", "far"))
    for metric in (FLIPS, mean):
        assert (board.standings[near][metric].text, board.standings[far][metric].text) == ("1", "2")
    assert {row.identity.method: row.value(mean) for row in board.rows} == {"dense": 0.0, "near": 0.03, "far": 0.45}
    assert board.headlines["tiny"].sides["stays itself"] == mean


def test_only_what_counts_for_a_task_has_flips_and_a_smoke_test_no_rank() -> None:
    reference, made = artifact("dense", target="none", removed=0.0), artifact("random")
    records: list[Any] = [reference, made, chosen(reference, "1100", "0123"), chosen(made, "1010", "0210")]
    alone = build(records, [])
    assert {id_ for id_ in values(alone, "random") if "norm" in id_} == {"piqa.acc_norm_flips@0shot/limit4"}
    board = build(records, [PAIR])
    assert not any("norm" in id_ for id_ in values(board, "random"))
    assert "piqa.acc_flips@0shot/limit4" in board.smoke


def test_where_the_dense_model_guesses_flips_say_nothing() -> None:
    board = ranked(arc_easy=0.27)
    assert board.signals["tiny"]["arc_easy.acc_flips@0shot/limit200"].has_signal is False
    mean = "pair.flips_mean@0shot/limit200"
    near = next(row.identity for row in board.rows if row.identity.method == "near")
    assert board.standings[near][FLIPS].text == "1"
    for metric in ("arc_easy.acc_flips@0shot/limit200", mean):
        assert board.standings[near][metric].text == "–"
        assert metric in board.no_signal("tiny")
    assert "no signal" in board.standings[near]["arc_easy.acc_flips@0shot/limit200"].reason
    assert board.headlines["tiny"].sides["stays itself"] == FLIPS
    assert [signal.metric for signal in board.headlines["tiny"].left_out] == ["arc_easy.acc@0shot/limit200"]


def test_flattery_is_what_is_chosen_right_and_answered_wrong() -> None:
    def asked(made: ArtifactRecord, task: str, bits: str, metric: str, file: str = "f1") -> MeasureRecord:
        ingredients = {"data": {"sciq_olmes/5shot": file}, "engine": "e/1"}
        return scored(made, f"{task}@5shot/limit4", bits, (metric,), ingredients=ingredients)

    def board(said: MeasureRecord) -> dict[str, float | None]:
        found = build([reference, made, *others, said], [])
        [shown] = [row for row in found.rows if row.identity.method == "random"]
        return {id_: cell.value for id_, cell in shown.cells.items() if "flattery" in id_}

    reference, made = artifact("dense", target="none", removed=0.0), artifact("random")
    others = [
        asked(reference, "sciq_olmes", "1111", "acc_norm"),
        asked(reference, "sciq_open", "1100", "exact_match"),
        asked(made, "sciq_olmes", "1110", "acc_norm"),
    ]
    assert board(asked(made, "sciq_open", "0101", "exact_match")) == {"sciq_open.flattery@5shot/limit4": 0.5}
    whole = build([reference, made, *others, asked(made, "sciq_open", "0101", "exact_match")], [], KNOWN)
    assert {row.identity.method: row.value("sciq_open.flattery@5shot/limit4") for row in whole.rows} == {
        "dense": 0.5,
        "random": 0.5,
    }
    assert not any("flattery" in metric for standing in whole.standings.values() for metric in standing), "no rank"
    assert board(asked(made, "sciq_open", "0101", "exact_match", file="f2")) == {}, "other questions"
    assert board(asked(made, "sciq_open", "01", "exact_match")) == {}
    assert board(scored(made, "sciq_open@5shot/limit4", "0101", ("exact_match",))) == {}, "its data is not known"
