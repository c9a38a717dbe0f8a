"""Report cards are ticked from records alone."""

from pathlib import Path

from bench.record.schema import ArtifactRecord
from bench.record.text import AnyRecord
from bench.report.board import Board, Tick
from bench.report.build import build
from bench.report.published import Counterpart, Protocol, Published, PublishedRow
from tests.record.records import artifact, scored, speed
from tests.report.boards import KNOWN, PPL, answers, dense, row

TICKS = ["points", "seeds", "random", "speed", "reload", "published"]


def ticks(board: Board, method: str) -> dict[str, Tick]:
    return dict(zip(TICKS, board.cards[method].ticks, strict=True))


def verdicts(board: Board, method: str) -> dict[str, bool | None]:
    return {name: tick.ok for name, tick in ticks(board, method).items()}


def point(method: str, shift: float, target: float, seed: int = 0) -> list[AnyRecord]:
    records = row(method, shift, target=f"params={target}", removed=target, seed=seed)
    made = records[0].model_copy(update={"cost": records[0].cost.model_copy(update={"seconds": {"reload": 1.0}})})
    return [made, *records[1:], speed(made, 1.2)]


def published(value: float) -> list[Published]:
    ours = Counterpart(model="tiny", method="saap", target="params=0.2")
    line = PublishedRow(method="SAAP", model="Tiny", of="saap", ours=ours, values={"ppl": value})
    how = Protocol(task="wikitext2", metric="ppl_token", protocol="128/limit64")
    return [Published(Path("file.yaml"), line, "ppl", value, how, "Table 1")]


def test_a_card_with_everything_is_all_ticks() -> None:
    records = dense()
    for target in (0.1, 0.2, 0.3, 0.4, 0.5):
        for seed in range(3):
            records += [*point("saap", target, target, seed), *point("random", 2 + target, target, seed)]
    own = build(records, []).rows
    [ours] = [r.value(PPL) for r in own if (r.identity.method, r.identity.target) == ("saap", "params=0.2")]
    assert ours is not None
    board = build(records, [], KNOWN + published(ours))
    assert verdicts(board, "saap") == dict.fromkeys(TICKS, True)
    assert verdicts(board, "random") == dict.fromkeys(TICKS, True) | {"random": None, "published": None}
    assert "dense" not in board.cards
    off = build(records, [], KNOWN + published(2 * ours))
    assert ticks(off, "saap")["published"].ok is False
    assert ticks(off, "saap")["published"].detail == "0 of 1 compared"


def test_what_is_missing_is_not_ticked() -> None:
    bare = point("saap", 3.0, 0.2)[:-1]
    made = artifact("trawl")
    board = build([*dense(), *bare, *point("random", 2.0, 0.2), made], [], KNOWN)
    assert verdicts(board, "saap") == {
        "points": False,
        "seeds": False,
        "random": False,
        "speed": False,
        "reload": True,
        "published": None,
    }
    assert ticks(board, "saap")["random"].detail == "0 of 1 rows significantly better, pair by pair"
    trawl = ticks(board, "trawl")
    assert (trawl["random"].ok, trawl["random"].detail) == (None, "not compared")
    assert (trawl["reload"].ok, trawl["reload"].detail) == (False, "0 of 1 checkpoints")


def test_seeds_that_change_nothing_are_as_good_as_many() -> None:
    same = [record for seed in range(2) for record in row("magnitude", 0.5, seed=seed)]
    alike = same[1].evidence
    same = [same[0], same[1], same[2], same[3].model_copy(update={"evidence": alike})]
    board = build([*dense(), *same], [], KNOWN)
    assert ticks(board, "magnitude")["seeds"] == Tick(
        "at least 3 seeds, unless seeds change nothing", True, "several seeds gave the same"
    )
    assert ticks(build([*dense(), *same[:2]], [], KNOWN), "magnitude")["seeds"].ok is False
    declared = ticks(build([*dense(), *same[:2]], [], KNOWN, {"magnitude"}), "magnitude")["seeds"]
    assert (declared.ok, declared.detail) == (True, "deterministic")
    other = [record for seed in range(2) for record in row("saap", 0.5, seed=seed)]
    assert ticks(build([*dense(), *other], [], KNOWN), "saap")["seeds"].ok is False


def test_random_is_not_beaten_or_missed_by_a_smoke_test() -> None:
    records = dense()
    for method, shift in (("saap", 0.1), ("random", 2.0)):
        records += row(method, shift)
    made = [record for record in records if isinstance(record, ArtifactRecord)]
    records += [scored(one, "piqa@0shot/limit20", answers(0.5, 20, seed=i)) for i, one in enumerate(made)]
    board = build(records, [], KNOWN)
    assert {"knows", "stays itself"} <= board.headlines["tiny"].sides.keys()
    assert list(board.telling("tiny")) == ["models text"]
    assert {pair.metric for pair in board.pairs} > {PPL}
    assert ticks(board, "saap")["random"] == Tick(
        "random beaten at equal size", True, "1 of 1 rows significantly better, pair by pair"
    )
