import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import ProtocolMismatch
from bench.record.kinds import PERPLEXITY
from bench.report.board import WORSE, Board, Row
from bench.report.build import build, mean_of_metrics
from bench.report.cell import cell_of
from bench.report.formats import cell_text
from bench.task_group import TaskGroup
from tests.record.records import accuracy, artifact, failed, failed_artifact, measure, perplexity, speed
from tests.report.boards import PAIR, cells, smollm

PPL = "wikitext2.ppl_token@2048/limit4"
MEAN = "pair.mean@0shot/limit20"


def row_of(board: Board, method: str, **which: str) -> Row:
    wanted = {"method": method} | which
    [row] = [r for r in board.rows if all(getattr(r.identity, name) == value for name, value in wanted.items())]
    return row


def test_dense_first_then_by_quality() -> None:
    board = build(smollm(), [PAIR])
    assert board.quality == {"tiny": PPL}
    assert [(row.identity.method, row.identity.recovery) for row in board.rows] == [
        ("dense", "none"),
        ("llm_pruner", "lora"),
        ("llm_pruner", "none"),
        ("random", "none"),
        ("magnitude", "none"),
    ]
    assert all(row.status == "ok" for row in board.rows)


def test_models_stand_apart_each_with_its_own_order() -> None:
    other = artifact("dense", model="other", target="none")
    board = build([*smollm(), other, perplexity(other, 9.0, "lambada_text@128")], [PAIR])
    assert board.quality["other"] == "lambada_text.ppl_token@128"
    assert [row.identity.method for row in board.of("other")] == ["dense"]
    assert [c.id for c in board.columns_of("other") if c.kind is PERPLEXITY] == ["lambada_text.ppl_token@128"]


def test_quality_is_the_perplexity_that_all_ok_rows_have() -> None:
    a, b = artifact("dense", target="none"), artifact("random")
    tasks = ["wikitext2@2048", "wikitext2@128", "wikitext2@2048/limit9", "lambada_text@2048"]  # in their order
    both = [perplexity(made, 10.0 + i, task) for i, task in enumerate(tasks) for made in (a, b)]
    assert build([a, b, *both], []).quality == {"tiny": "wikitext2.ppl_token@2048"}
    assert build([a, b, *both[1:]], []).quality == {"tiny": "wikitext2.ppl_token@128"}
    broken = failed_artifact("magnitude")
    assert build([a, b, *both, broken], []).quality == {"tiny": "wikitext2.ppl_token@2048"}
    assert build([a, b, *both[6:]], []).quality == {"tiny": "lambada_text.ppl_token@2048"}


def test_without_perplexity_the_mean_orders_the_rows_downwards() -> None:
    records = [r for r in smollm() if not (r.kind == "measure" and "ppl" in r.metrics[0].id)]
    better = artifact("saap")
    records += [
        better,
        accuracy(better, "piqa@0shot/limit20", 0.9),
        accuracy(better, "hellaswag@0shot/limit20", 0.9, ("acc_norm",)),
    ]
    board = build(records, [PAIR])
    assert board.quality == {"tiny": MEAN}
    assert [row.identity.method for row in board.rows][:2] == ["dense", "saap"]


def test_worse_than_random_is_marked_at_equal_target_only() -> None:
    board = build(
        [
            *cells("random", 300.0),
            *cells("random", 100.0, recovery="lora"),
            *cells("magnitude", 310.0),
            *cells("llm_pruner", 290.0),
            *cells("saap", 120.0, recovery="lora"),
            *cells("trawl", 900.0, target="params=0.5"),
            *cells("dense", 20.0),
        ],
        [PAIR],
    )
    marked = {(r.identity.method, r.identity.recovery) for r in board.rows if WORSE in r.notes}
    assert marked == {("magnitude", "none"), ("saap", "lora")}


def test_mean_with_its_error_and_smoke_mark() -> None:
    board = build(cells("random", 300.0, accuracies=(0.5, 0.3)), [PAIR])
    cell = board.rows[0].cells[MEAN]
    assert cell.value == pytest.approx(0.4)
    assert cell.stderr == pytest.approx((0.1**2 + 0.1**2) ** 0.5 / 2)
    assert {MEAN, "piqa.acc@0shot/limit20"} <= board.smoke
    assert PPL not in board.smoke
    assert not build(cells("random", 300.0, limit=100), [PAIR]).smoke


MEMBERS = ("a.acc", "b.acc", "c.acc_norm")
TRIO = TaskGroup(name="trio", kind="group", description="three tasks", members=MEMBERS)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from(["0shot", "0shot/limit20", "5shot"]))))
def test_a_mean_exists_exactly_where_every_member_has_that_protocol(present: set[tuple[str, str]]) -> None:
    made = artifact()
    records: list[Any] = [
        made,
        *(accuracy(made, f"{task}@{suffix}", 0.5, ("acc", "acc_norm")) for task, suffix in present),
    ]
    [row] = build(records, [TRIO]).rows
    for suffix in ("0shot", "0shot/limit20", "5shot"):
        has = {task for task, other in present if other == suffix}
        assert (row.value(f"trio.mean@{suffix}") is not None) == (has == set("abc"))
        absent = tuple(f"{member}@{suffix}" for member in MEMBERS if member[0] not in has)
        assert row.missing.get(f"trio.mean@{suffix}", ()) == (absent if has else ())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["random", "saap"]),
            st.sampled_from(["wikitext2", "lambada_text"]),
            st.sampled_from(["128", "2048", "2048/limit4"]),
            st.floats(1, 1e6),
        ),
        unique_by=lambda item: item[:3],
    )
)
def test_differing_protocols_never_share_a_column(measured: list[tuple[str, str, str, float]]) -> None:
    records: list[Any] = [artifact("random"), artifact("saap")]
    by_name = {record.method: record for record in records}
    for method, task, protocol, value in measured:
        records.append(perplexity(by_name[method], value, f"{task}@{protocol}"))
    random.Random(len(measured)).shuffle(records)
    board = build(records, [PAIR])
    values = {
        (row.identity.method, id_): cell.value
        for row in board.rows
        for id_, cell in row.cells.items()
        if ".ppl_token@" in id_
    }
    assert values == {(m, f"{task}.ppl_token@{protocol}"): value for m, task, protocol, value in measured}
    assert {c.id for c in board.columns if c.kind is PERPLEXITY} == {id_ for _, id_ in values}


def test_failed_cells_show_their_code_and_nothing_is_lost() -> None:
    made, lost = artifact("saap"), failed_artifact("trawl")
    board = build(
        [
            *cells("random", 300.0),
            made,
            failed(made, "piqa@0shot/limit20"),
            failed(made, "novel@0shot", "oom", "oom"),
            lost,
            failed(lost, "wikitext2@2048/limit4", "skipped", "artifact_failed"),
        ],
        [PAIR],
    )
    saap, trawl = row_of(board, "saap"), row_of(board, "trawl")
    assert saap.status == "incomplete"
    assert saap.cells["piqa.acc@0shot/limit20"].lost == ("failed:nan_loss",)
    assert saap.cells["piqa.acc_norm@0shot/limit20"].value is None
    assert saap.cells["novel@0shot"].lost == ("oom",)
    assert any("a | pipe" in note for note in saap.notes)
    assert trawl.status == "failed:nan_loss"
    assert trawl.cells[PPL].lost == ("skipped:artifact_failed",)
    assert board.rows[-1] in (saap, trawl)


def test_a_failure_before_any_success_does_not_spoil_the_column() -> None:
    made = artifact("a_first")
    board = build([made, failed(made, "wikitext2@2048/limit4"), *cells("random", 300.0)], [])
    assert next(c for c in board.columns if c.id == PPL).kind is PERPLEXITY
    assert board.quality == {"tiny": PPL}


def test_seeds_are_averaged_and_failed_seeds_named() -> None:
    records: list[Any] = []
    for seed, value in enumerate((10.0, 12.0, 14.0)):
        made = artifact("random", seed=seed, removed=0.2 + seed / 1000)
        records += [made, perplexity(made, value)]
    made = artifact("random", seed=3)
    [row] = build([*records, made, failed(made, "wikitext2@2048/limit4", "oom", "oom")], []).rows
    cell = row.cells[PPL]
    assert (row.seeds, cell.seeds, cell.value, cell.std) == (4, 3, 12.0, 2.0)
    assert cell.stderr == pytest.approx(0.4)
    assert cell.lost == ("oom",)
    assert row.value("removed.params") == pytest.approx((0.2 + 0.201 + 0.202 + 0.2) / 4)


def test_the_newest_measurement_wins_and_older_ones_are_counted() -> None:
    made = artifact()
    old = perplexity(made, 10.0, version=1, created="2026-01-01T00:00:00.000+00:00")
    new = perplexity(made, 11.0, version=2, created="2026-02-01T00:00:00.000+00:00")
    orders: list[list[Any]] = [[made, old, new], [new, old, made]]
    for records in orders:
        board = build(records, [])
        assert board.rows[0].value(PPL) == 11.0
        assert any("1 older record not shown" in note for note in board.notes)
        assert len(board.long[board.long.metric == PPL]) == 2


def test_two_checkpoints_never_share_a_row() -> None:
    old = artifact(version="1", created="2026-01-01T00:00:00.000+00:00")
    new = artifact(version="2", created="2026-02-01T00:00:00.000+00:00")
    board = build([old, new, perplexity(new, 11.0), perplexity(old, 10.0), accuracy(old, "piqa@0shot", 0.5)], [])
    [row] = board.rows
    assert row.value(PPL) == 11.0
    assert "piqa.acc@0shot" not in row.cells
    assert any("3 older records not shown" in note for note in board.notes)


def test_measurements_without_their_checkpoint_are_listed_with_a_warning() -> None:
    board = build([perplexity(artifact(), 10.0)], [])
    assert board.rows[0].value(PPL) == 10.0
    assert any("record of its checkpoint is missing" in note for note in board.notes)


def test_the_measurements_own_remarks_are_kept() -> None:
    made = artifact()
    board = build([made, measure(made, "generate@hf/b1/p64/n128", [], evidence={"notes": ["did not settle"]})], [])
    assert board.notes == ("generate@hf/b1/p64/n128 (random): did not settle",)


def test_compressing_seconds_leave_out_loading_and_saving() -> None:
    [row] = build([artifact()], []).rows
    assert row.value("cost.seconds") == 13.25


def test_long_table_has_a_line_for_each_metric_and_for_each_failure() -> None:
    made = artifact()
    long = build([made, perplexity(made, 10.0), failed(made, "piqa@0shot")], []).long
    assert len(long[long.task == "compress"]) == 8
    assert long[long.metric == PPL].value.tolist() == [10.0]
    [bad] = long[long.status != "ok"].to_dict("records")
    assert (bad["task"], bad["error"], bad["artifact_key"]) == ("piqa@0shot", "nan_loss", made.key)


def test_one_id_in_two_units_cannot_share_a_column() -> None:
    a, b = artifact("random"), artifact("saap")
    strange = perplexity(b, 10.0)
    metric = strange.metrics[0].model_copy(update={"unit": "bits"})
    with pytest.raises(ProtocolMismatch, match=r"^wikitext2.ppl_token@2048/limit4: some records give it in ppl"):
        build([a, b, perplexity(a, 10.0), strange.model_copy(update={"metrics": [metric]})], [])


def test_numbers_of_two_protocols_share_no_cell_and_no_mean() -> None:
    made = artifact()
    one, two = (accuracy(made, task, 0.5).metrics[0] for task in ("piqa@0shot", "piqa@0shot/limit20"))
    with pytest.raises(ProtocolMismatch, match="two metrics and cannot share a cell"):
        cell_of([one, two], [])
    with pytest.raises(ProtocolMismatch, match="a mean over protocols 0shot and 0shot/limit20 would mix"):
        mean_of_metrics("pair.mean@0shot", [one, two])


def test_a_disturbed_speed_is_marked_and_its_memory_is_not() -> None:
    made = artifact()
    record = speed(made, 1.2)
    shaken = record.model_copy(update={"evidence": record.evidence.model_copy(update={"disturbed": "others used it"})})
    for found, marks in ((record, False), (shaken, True)):
        [row] = build([made, found], []).rows
        cells = {id_.split("@")[0]: cell for id_, cell in row.cells.items() if id_.startswith("generate.")}
        assert {name: cell.is_disturbed for name, cell in cells.items()} == {
            name: marks and name != "generate.peak_memory" for name in cells
        }
        assert cell_text(cells["generate.speedup"], "ratio").endswith(" disturbed") == marks
