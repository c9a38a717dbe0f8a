"""Published numbers: read with one clear sentence, compared with ours where the protocols match."""

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.record.text import AnyRecord
from bench.report.board import Comparison
from bench.report.build import build
from bench.report.markdown import markdown
from bench.report.published import HERE, Published, known_dense, load_published
from bench.report.reproduction import differing
from bench.report.tables import reproduction_csv
from bench.report.verdicts import reproduction
from tests.record.records import artifact, perplexity, scored, size, windowed
from tests.report.boards import answers, cells, dense, row

FILE = """
about: a test
metrics:
  ppl: {task: wikitext2, metric: ppl_token, protocol: 128/limit64}
  ppl_2048: {task: wikitext2, metric: ppl_token, protocol: "2048"}
  piqa: {task: piqa, metric: acc, protocol: 0shot/limit200, scale: 100}
  params_B: {task: params, metric: stored, scale: 1.0e-9}
  mmlu: {task: mmlu, metric: acc, why: task MMLU is none of ours}
tables:
  - source: Table 1
    rows:
      - {method: The Method, model: Tiny, of: saap, values: VALUES,
         ours: {model: tiny, method: saap, target: params=0.2, preset: quick}}
"""


def written(results: Path, text: str) -> Path:
    (results / "published").mkdir(parents=True)
    path = results / "published" / "test.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mine(results: Path) -> list[Published]:
    """The numbers of `results` alone."""
    return [number for number in load_published(results) if number.file.parent == results / "published"]


def one(tmp_path: Path, values: str, board_rows: list[AnyRecord], change: tuple[str, str] = ("", "")) -> Comparison:
    written(tmp_path, FILE.replace("VALUES", values).replace(*change))
    [found] = build(board_rows, [], mine(tmp_path)).published
    return found


def test_a_number_within_our_interval_is_reproduced(tmp_path: Path) -> None:
    records = row("saap", 0.2)
    ours = records[1].metrics[0]
    found = one(tmp_path, f"{{ppl: {ours.value + ours.stderr:.2f}}}", records)
    assert (found.state, found.ours, found.why) == ("reproduced", ours.value, "")
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.published.number < found.high
    assert found.delta == pytest.approx(-ours.stderr, abs=0.006)


def test_a_number_outside_is_off_by_the_difference(tmp_path: Path) -> None:
    records = row("saap", 0.2)
    ours = records[1].metrics[0]
    found = one(tmp_path, f"{{ppl: {ours.value + 3 * ours.stderr:.2f}}}", records)
    assert found.state == "off"
    assert found.delta == pytest.approx(-3 * ours.stderr, abs=0.006)


def test_percents_are_compared_as_fractions(tmp_path: Path) -> None:
    records = row("saap", 0.2)
    records.append(scored(records[0], "piqa@0shot/limit200", answers(0.6)))
    right = answers(0.6).count("1") / 2
    found = one(tmp_path, f"{{piqa: {right}}}", records)
    assert (found.state, found.delta) == ("reproduced", pytest.approx(0, abs=1e-9))


def test_several_seeds_widen_our_interval(tmp_path: Path) -> None:
    records = [record for seed, shift in enumerate((0.0, 0.2, 0.4)) for record in row("saap", shift, seed=seed)]
    found = one(tmp_path, "{ppl: 31.0}", records)
    assert found.state == "reproduced"
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 15


@pytest.mark.parametrize(("printed", "state"), [("0.08", "reproduced"), ("0.081", "off")])
def test_a_count_is_reproduced_as_far_as_it_was_printed(tmp_path: Path, printed: str, state: str) -> None:
    made = artifact("saap")
    assert one(tmp_path, f"{{params_B: {printed}}}", [made, size(made, 8.02e7)]).state == state


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        ("wikitext2.ppl_token@128", "wikitext2.ppl_token@2048", "window 128 ≠ 2048"),
        ("wikitext2.ppl_token@2048", "wikitext2.ppl_token@2048/limit8", "items all ≠ first 8"),
        ("piqa.acc@0shot/limit200", "piqa.acc@0shot", "items first 200 ≠ all"),
        ("piqa.acc@0shot", "piqa.acc@0shot+notice", "protocol 0shot ≠ 0shot+notice"),
    ],
)
def test_what_differs_in_a_protocol_is_named(theirs: str, ours: str, text: str) -> None:
    assert differing(theirs, ours) == text


def test_the_cell_names_the_field_that_differs(tmp_path: Path) -> None:
    made = artifact("saap")
    records: list[Any] = [made, perplexity(made, 30.0, "wikitext2@128")]
    written(tmp_path, FILE.replace("VALUES", "{ppl_2048: 30.0}"))
    board = build(records, [], mine(tmp_path))
    [found] = board.published
    assert (found.state, found.why, found.delta) == ("not comparable", "window 2048 ≠ 128", None)
    assert "not comparable: window 2048 ≠ 128" in markdown(board)


@pytest.mark.parametrize(
    ("values", "change", "state", "why"),
    [
        ("{ppl: 30.0}", ("preset: quick", "preset: paper"), "not comparable", "preset paper ≠ quick"),
        ("{ppl: 30.0}", ("params=0.2", "params=0.5"), "not run", "no row tiny / saap at params=0.5, recovery none"),
        ("{piqa: 30.0}", ("", ""), "not run", "piqa.acc@0shot/limit200 was not measured"),
        ("{mmlu: 30.0}", ("", ""), "not comparable", "task MMLU is none of ours"),
    ],
)
def test_what_cannot_be_compared_says_why(
    tmp_path: Path, values: str, change: tuple[str, str], state: str, why: str
) -> None:
    found = one(tmp_path, values, row("saap", 0.2), change)
    assert (found.state, found.why, found.ours, found.delta) == (state, why, None, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "about: x\nmetrics: {}\ntables: [{source: Table 1, rows: [{method: a, model: b, why: c, values: {p: 1}}]}]",
            "metric 'p' of 'a' has no protocol under metrics",
        ),
        (
            "about: x\nmetrics: {}\ntables: [{source: Table 1, rows: [{method: a, model: b, values: {ppl: 1}}]}]",
            "row 'a' names neither its counterpart (ours) nor why there is none (why)",
        ),
        (FILE.replace("VALUES", "{ppl: many}"), "tables.0.rows.0.values.ppl"),
        (FILE.replace("VALUES", "{}"), "tables.0.rows.0.values"),
        (FILE.replace("0shot/limit200", "0shot+noboss").replace("VALUES", "{piqa: 1}"), "metrics.piqa.protocol"),
        (FILE.replace("source: Table 1", "sauce: Table 1").replace("VALUES", "{ppl: 1}"), "tables.0.source"),
        ("about: [", "not valid YAML"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        load_published(tmp_path)
    assert str(raised.value).startswith(f"{path}: ")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dense_score_is_known_once(tmp_path: Path) -> None:
    line = "{method: dense, model: Tiny, of: dense, ours: {model: tiny, method: dense}, known: true, values: {ppl: %s}}"
    text = FILE.split("tables:")[0] + "tables: [{source: Table 1, rows: [" + line % 20 + ", " + line % 21 + "]}]"
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=r"@128/limit64 of tiny is 21.0 here and 20.0 in .*test.yaml"):
        load_published(tmp_path)
    path.write_text(text.replace("21", "20"))
    assert len(known_dense(load_published(tmp_path), "tiny")) == 2


COMMITTED = load_published(HERE)


def test_those_of_a_results_folder_stand_with_ours(tmp_path: Path) -> None:
    written(tmp_path, FILE.replace("VALUES", "{ppl: 30.0}"))
    [added] = mine(tmp_path)
    assert load_published(tmp_path) == [*COMMITTED, added]


def test_a_file_of_a_results_folder_may_have_the_name_of_one_of_ours(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.replace("VALUES", "{ppl: 30.0}"))
    [ours, *_] = sorted(HERE.glob("*.yaml"))
    path.rename(path.with_name(ours.name))
    assert len(load_published(tmp_path)) == len(COMMITTED) + 1
    assert {number.file.parent for number in load_published(tmp_path) if number.file.name == ours.name} == {
        HERE,
        tmp_path / "published",
    }


def test_a_number_of_a_results_folder_may_not_contradict_a_known_one_of_ours(tmp_path: Path) -> None:
    """Both files are named, though they may have the same name."""
    line = "{method: dense, model: Tiny, ours: {model: llama-7b, method: dense}, known: true, values: {ppl_2048: 5.7}}"
    path = written(tmp_path, FILE.split("tables:")[0] + f"tables: [{{source: Table 1, rows: [{line}]}}]")
    with pytest.raises(UsageError) as raised:
        load_published(tmp_path)
    assert str(raised.value) == (
        f"{path}: known: wikitext2.ppl_token@2048 of llama-7b is 5.7 here and 5.68 in {HERE / 'dense.yaml'}"
    )


def test_conditions_are_said_and_so_is_what_is_not_known(tmp_path: Path) -> None:
    text = FILE.replace("Table 1", "Table 1\n    year: 2023\n    dtype: float16")
    written(tmp_path, text.replace("VALUES", "{ppl: 30}"))
    [number] = mine(tmp_path)
    assert number.conditions == "year 2023, dtype float16; not known: harness, calibration"
    board = build(row("saap", 0.2), [], [number])
    assert "(year 2023, dtype float16; not known: harness, calibration):" in reproduction(board)
    assert "Table 1 (year 2023, dtype float16; not known: harness, calibration)" in markdown(board)
    assert reproduction_csv(board).splitlines()[0].endswith("source,conditions")


@pytest.mark.parametrize(
    ("printed", "ours"), [("0shot+notice+nobos/limit200", "0shot+nobos+notice/limit200"), ("128+bos", "128+bos")]
)
def test_a_published_protocol_has_the_form_of_ours(tmp_path: Path, printed: str, ours: str) -> None:
    written(tmp_path, FILE.replace("0shot/limit200", printed).replace("VALUES", "{piqa: 30.0}"))
    assert mine(tmp_path)[0].metric_id == f"piqa.acc@{ours}"


def test_the_accuracies_of_a_table_say_whether_they_had_a_bos() -> None:
    """Whatever is compared with one of ours, that is; no table here was measured by the tokenizer's default."""
    ours = [number for number in COMMITTED if not number.why and number.metric_id.split("@")[-1].startswith("0shot")]
    without = [number for number in ours if number.file.name != "smollm2-135m.yaml"]
    assert len(without) > 100
    assert all("+nobos" in number.metric_id for number in without)


def test_the_committed_numbers_keep_their_sources_and_say_what_they_are() -> None:
    assert len(COMMITTED) > 1100
    assert all(number.source and number.protocol.task for number in COMMITTED)
    six = {"llm_pruner", "saap", "compresso", "pruning_adapter", "trawl"}
    assert six <= {number.row.of for number in COMMITTED}
    llama = {score.metric_id: score.number for score in known_dense(COMMITTED, "llama-7b")}
    assert llama["wikitext2.ppl_token@128"] == 12.62
    assert llama["wikitext2.ppl_token@2048"] == 5.68
    assert llama["hellaswag.acc_norm@0shot+nobos+separate"] == 0.7299
    assert llama["hellaswag.acc_norm@0shot+nobos"] == 0.7619
    assert len(llama) == 21
    assert {score.metric_id: score.number for score in known_dense(COMMITTED, "smollm2-135m")}.items() >= {
        "wikitext2.ppl_token@2048": 21.61,
        "arc_easy.acc@0shot/limit200": 0.51,
        "piqa.acc@0shot/limit200": 0.64,
        "hellaswag.acc_norm@0shot/limit200": 0.47,
        "boolq.acc@0shot/limit200": 0.42,
    }.items()


def test_the_reproduction_report_lists_every_number() -> None:
    made = artifact("llm_pruner", model="llama-7b", preset="paper")
    records = [*cells("dense", 12.6, model="llama-7b"), made, windowed(made, "wikitext2@128", [2.94, 2.96, 2.95])]
    board = build(records, [], COMMITTED)
    lines = reproduction_csv(board).splitlines()
    assert len(lines) == 1 + sum(bool(number.row.of) for number in COMMITTED)
    [found] = [c for c in board.published if c.published.row.of == "llm_pruner" and c.ours is not None]
    assert (found.published.row.method, found.published.value) == ("LLM-Pruner Element1", 19.09)
    assert found.state == "reproduced"
    text = reproduction(board)
    assert "LLM-Pruner NeurIPS2023 paper Table 1" in text
    assert "importance Vector ≠ Element^1" in text
    assert "weights Vicuna v0 ≠ v1.3" in text
    assert {c.state for c in board.published} == {"reproduced", "off", "not comparable", "not run"}


def test_a_known_score_is_compared_as_its_gate_compares_it() -> None:
    records = dense(21.0, model="smollm2-135m")
    records.append(scored(records[0], "piqa@0shot/limit500", "1" * 128 + "0" * 372))
    board = build(records, [], COMMITTED)
    [found] = [c for c in board.published if c.state in ("reproduced", "off")]
    assert (found.published.metric_id, found.state, found.ours) == ("piqa.acc@0shot/limit200", "reproduced", 0.64)
