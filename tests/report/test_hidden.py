"""What a board does not show: superseded and stale records, hidden and never lost."""

from typing import Any

from bench.report.build import build
from bench.report.hidden import hidden
from tests.record.records import artifact, failed_artifact, perplexity, windowed
from tests.report.boards import text_losses

EARLY, LATE = "2026-01-01T00:00:00.000+00:00", "2026-02-01T00:00:00.000+00:00"
TASK, PPL = "wikitext2@128/limit64", "wikitext2.ppl_token@128/limit64"


def test_what_a_newer_record_replaces_is_superseded() -> None:
    old, new = artifact(created=EARLY), artifact(version="x", created=LATE)
    first, second = (perplexity(new, 11.0, version=i, created=when) for i, when in ((1, EARLY), (2, LATE)))
    gone = perplexity(old, 10.0)
    found = {item.record.key: item.why for item in hidden([old, new, first, second, gone])}
    assert found == {
        old.key: f"superseded: {new.key} is a newer checkpoint of the same row and seed",
        gone.key: f"superseded: {new.key} is a newer checkpoint of the same row and seed",
        first.key: f"superseded by {second.key}, measured later",
    }
    assert hidden([new, second]) == []


def test_an_older_engine_is_stale_and_its_number_hidden() -> None:
    a, b = artifact("saap"), artifact("random")
    old = windowed(a, TASK, text_losses(), engine="perplexity/1")
    new = windowed(b, TASK, text_losses(), engine="perplexity/2")
    records: list[Any] = [a, b, old, new]
    board = build(records, [])
    [stale] = [row for row in board.rows if row.identity.method == "saap"]
    assert stale.cells[PPL].value is None
    assert stale.cells[PPL].lost == ("stale:perplexity/1",)
    assert stale.status == "incomplete"
    assert [(item.record.key, item.why) for item in hidden(records)] == [
        (old.key, "stale: perplexity/1, and there is perplexity/2")
    ]
    assert len(board.long[board.long.metric == PPL]) == 2
    assert build([a, old], []).rows[0].value(PPL) is not None


def test_a_newer_measurement_of_the_same_task_takes_the_place_of_a_stale_one() -> None:
    made = artifact("saap")
    old = windowed(made, TASK, text_losses(1.0), engine="perplexity/1", created=EARLY)
    new = windowed(made, TASK, text_losses(), engine="perplexity/2", version=2, created=LATE)
    [row] = build([made, old, new], []).rows
    assert row.status == "ok"
    assert row.value(PPL) == new.metrics[0].value


def test_an_older_version_of_a_method_is_stale() -> None:
    old, new = artifact("saap", target="params=0.5"), artifact("saap", version="2")
    measured = perplexity(old, 10.0)
    board = build([old, new, measured], [])
    assert [row.identity.target for row in board.rows] == ["params=0.2"]
    assert any("params=0.5" in note and "stale: saap/1, and there is saap/2" in note for note in board.notes)
    found = {item.record.key: item.why for item in hidden([old, new, measured])}
    assert found == {old.key: "stale: saap/1, and there is saap/2", measured.key: "its checkpoint is stale"}


def test_only_the_same_model_and_task_make_a_record_stale() -> None:
    made = artifact("saap")
    old = windowed(made, TASK, text_losses(), engine="perplexity/1")
    others = [
        windowed(made, "wikitext2@2048", text_losses(), engine="perplexity/2"),
        windowed(artifact("random", model="other"), TASK, text_losses(), engine="perplexity/2"),
    ]
    assert hidden([made, old, *others]) == []


def test_a_newer_version_that_failed_hides_nothing() -> None:
    old, broken = artifact("saap", target="params=0.5"), failed_artifact("saap", version="2")
    assert hidden([old, broken]) == []
