"""Ranks: among whom, with which ties, and why a row has none."""

from typing import Any

import pytest

from bench.record.schema import Cost
from bench.record.text import AnyRecord
from bench.report.board import Board
from bench.report.build import build
from bench.report.published import Published
from bench.report.rank import Standing
from tests.record.records import artifact, failed_artifact, scored, windowed
from tests.report.boards import KNOWN, PPL, answers, dense, row, text_losses

PIQA = "piqa.acc@0shot/limit200"


def standing(board: Board, method: str, metric: str = PPL, **which: str) -> Standing:
    wanted = {"method": method} | which
    [found] = [
        identity
        for identity in board.standings
        if all(getattr(identity, name) == value for name, value in wanted.items())
    ]
    return board.standings[found][metric]


def ranks(board: Board, metric: str = PPL) -> dict[str, str]:
    return {identity.method: found[metric].text for identity, found in board.standings.items() if metric in found}


def test_a_rank_is_an_interval_and_ties_are_named() -> None:
    records = [*dense(), *row("saap", 0.2), *row("llm_pruner", 0.201), *row("random", 1.0), *row("magnitude", 2.0)]
    board = build(records, [], KNOWN)
    assert ranks(board) == {"dense": "–", "saap": "1–2", "llm_pruner": "1–2", "random": "3", "magnitude": "4"}
    tied = standing(board, "saap")
    assert [other.method for other in tied.ties] == ["llm_pruner"]
    assert (tied.of, tied.group, tied.reason) == (4, "params=0.2, recovery none", "")
    assert standing(board, "random").ties == ()
    assert board.standing(board.rows[1].identity) == standing(board, board.rows[1].identity.method)


def test_point_values_do_not_decide() -> None:
    better = build([*dense(), *row("a", 0.2), *row("b", 0.2005)], [], KNOWN)
    assert better.rows[1].identity.method in "ab"
    assert ranks(better) == {"dense": "–", "a": "1–2", "b": "1–2"}


@pytest.mark.parametrize("who", [{"target": "params=0.5", "removed": 0.5}, {"recovery": "lora"}, {"model": "other"}])
def test_only_the_same_model_size_and_recovery_are_compared(who: dict[str, Any]) -> None:
    board = build([*dense(), *row("saap", 0.2), *row("random", 1.0), *row("trawl", 0.1, **who)], [], KNOWN)
    assert standing(board, "saap").text == "1"
    assert standing(board, "random").text == "2"
    other = standing(board, "trawl")
    assert not other.is_ranked
    assert other.reason in ("nothing to compare it with", "dense gate not known: no score of the dense model is known")


def test_a_row_that_missed_its_target_is_not_ranked() -> None:
    board = build([*dense(), *row("saap", 0.2), *row("random", 1.0), *row("trawl", 0.1, removed=0.193)], [], KNOWN)
    assert ranks(board) == {"dense": "–", "saap": "1", "random": "2", "trawl": "–"}
    assert standing(board, "trawl").reason == "params=0.2 was asked for and 0.193 removed"


def trained(method: str, numbers: int, shift: float) -> list[AnyRecord]:
    cost = Cost(
        seconds={}, peak_memory_bytes=None, calibration_tokens=0, optimiser_steps=1, trainable_parameters=numbers
    )
    return row(method, shift, target="none", removed=0.0, cost=cost)


def test_rows_without_a_target_are_compared_by_what_they_achieved() -> None:
    records = [
        *dense(),
        *trained("lora", 1000, 0.2),
        *trained("capaboost", 1009, 0.1),
        *trained("larger", 2000, 0.05),
        *row("own", 0.5, target="none", removed=0.300),
        *row("knob", 0.7, target="none", removed=0.304),
        *row("more", 0.4, target="none", removed=0.31),
    ]
    board = build(records, [], KNOWN)
    assert ranks(board) == {
        "dense": "–",
        "lora": "2",
        "capaboost": "1",
        "larger": "–",
        "own": "1",
        "knob": "2",
        "more": "–",
    }
    assert standing(board, "lora").group == "1,000 parameters trained"
    assert standing(board, "own").group == "30.0 % of the parameters removed, recovery none"


def test_what_is_not_ranked_says_why() -> None:
    elsewhere = artifact("elsewhere")
    engine = artifact("engine")
    records = [
        *dense(),
        *row("saap", 0.2),
        *row("random", 1.0),
        artifact("unmeasured"),
        failed_artifact("broken"),
        elsewhere,
        windowed(elsewhere, "wikitext2@128/limit64", text_losses(0.1), data="another text"),
        engine,
        windowed(engine, "wikitext2@128/limit64", text_losses(0.1), engine="other"),
    ]
    board = build(records, [], KNOWN)
    assert {method: standing(board, method).reason for method in ("dense", "unmeasured", "broken")} == {
        "dense": "reference",
        "unmeasured": f"not measured, or no evidence kept: {PPL}",
        "broken": "no checkpoint came of it",
    }
    for method in ("elsewhere", "engine"):
        assert standing(board, method).reason == "other data or another engine than the others"
    assert standing(board, "saap").of == 2


@pytest.mark.parametrize(
    ("published", "ppl", "reason"),
    [
        ([], 20.0, "dense gate not known: no score of the dense model is known"),
        (KNOWN, 40.0, "dense gate failed: the dense run misses known scores: "),
    ],
)
def test_nothing_is_ranked_before_the_dense_gate_is_passed(published: list[Published], ppl: float, reason: str) -> None:
    board = build([*dense(ppl), *row("saap", 0.2), *row("random", 1.0)], [], published)
    assert standing(board, "saap").reason.startswith(reason)
    assert not standing(board, "random").is_ranked


def test_fewer_than_a_hundred_items_are_not_ranked() -> None:
    records = dense()
    records.append(scored(records[0], "piqa@0shot/limit99", answers(0.9, 99)))
    records.append(scored(records[0], "piqa@0shot/limit100", answers(0.9, 100)))
    for method, share in (("saap", 0.9), ("random", 0.1)):
        made = artifact(method)
        records += [made, *(scored(made, f"piqa@0shot/limit{n}", answers(share, n)) for n in (99, 100))]
    board = build(records, [], KNOWN)
    assert ranks(board, "piqa.acc@0shot/limit100") == {"dense": "–", "saap": "1", "random": "2"}
    assert standing(board, "saap", "piqa.acc@0shot/limit99").reason.startswith("smoke")


def test_two_limits_are_two_metrics() -> None:
    made = artifact("trawl")
    records = [
        *dense(),
        *row("saap", 0.2),
        *row("random", 1.0),
        made,
        windowed(made, "wikitext2@128/limit32", text_losses(0.0, windows=32)),
    ]
    board = build(records, [], KNOWN)
    assert standing(board, "saap").of == 2
    assert standing(board, "trawl", "wikitext2.ppl_token@128/limit32").reason == "nothing to compare it with"


def with_answers(share: float) -> list[AnyRecord]:
    records = dense()
    return [*records, scored(records[0], "piqa@0shot/limit200", answers(share))]


def test_a_task_without_signal_ranks_nobody() -> None:
    rows = [*row("saap", 0.2, share=0.8), *row("random", 1.0, share=0.3)]
    assert ranks(build([*with_answers(0.8), *rows], [], KNOWN), PIQA) == {"dense": "–", "saap": "1", "random": "2"}
    board = build([*with_answers(0.5), *rows], [], KNOWN)
    assert standing(board, "saap", PIQA).reason.startswith("no signal: dense ")
    assert ranks(board, PIQA) == {"dense": "–", "saap": "–", "random": "–"}


def test_many_rows_need_stronger_evidence() -> None:
    def flipped(lost: int) -> str:
        bits = list("1" * 200)
        bits[:lost] = "0" * lost
        return "".join(bits)

    def board(extra: int) -> Board:
        records = [*with_answers(0.9)]
        for method, lost in [("a", 0), ("b", 8), *((f"x{i}", 0) for i in range(extra))]:
            made = artifact(method)
            records += [made, scored(made, "piqa@0shot/limit200", flipped(lost))]
        return build(records, [], KNOWN)

    assert standing(board(0), "a", PIQA).text == "1"  # McNemar: p = 2 / 2^8
    assert standing(board(6), "a", PIQA).text == "1–8"  # 28 pairs: 0.0078 is not enough


def test_seeds_that_differ_among_themselves_tie_with_others() -> None:
    spread = [(0, -0.3), (1, 0.0), (2, 0.3)]
    records = dense()
    for method, shift in (("saap", 0.4), ("random", 0.55)):
        for seed, own in spread:
            records += row(method, shift + own, seed=seed)
    board = build(records, [], KNOWN)
    assert ranks(board) == {"dense": "–", "saap": "1–2", "random": "1–2"}
    assert standing(board, "saap").seeds == 3
    alone = build([*dense(), *row("saap", 0.4, seed=1), *row("random", 0.55, seed=1)], [], KNOWN)
    assert ranks(alone) == {"dense": "–", "saap": "1", "random": "2"}
