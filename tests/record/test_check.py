"""Records that others send in: every lie is found, and named in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.record.check import check_records
from bench.record.keys import measure_key

OLD = Path(__file__).parents[1] / "data" / "old_records"
ARTIFACT, PIQA, TEXT = "artifact", "piqa", "wikitext2"
Change = Callable[[dict[str, Any]], None]


def sent(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "results")
    return tmp_path / "results"


def change(results: Path, name: str, edit: Change) -> Path:
    [path] = results.rglob(f"{name}*.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


def put(*path: str | int, value: Any) -> Change:
    def edit(data: dict[str, Any]) -> None:
        inner: Any = data
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value

    return edit


def add_bits(value: float) -> Change:
    """Bits per byte of a text whose tokens have two bytes each, as if they were `value`."""

    def edit(data: dict[str, Any]) -> None:
        [metric], windows = data["metrics"], data["evidence"]["windows"]
        sizes = [2 * count for count in windows["targets"]]
        name = metric["id"].replace("ppl_token", "bits_per_byte")
        data["metrics"].append(metric | {"id": name, "value": value, "unit": "bits/byte", "n": sum(sizes)})
        data["evidence"]["sums"] = {"bits_per_byte": {"nll": windows["nll"], "targets": sizes}}

    return edit


def test_whole_records_have_no_problems(tmp_path: Path) -> None:
    assert check_records(sent(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "edit", "sentence"),
    [
        (PIQA, put("metrics", 0, "value", value=0.99), "piqa.acc@0shot/limit16 is 0.99, but its 16 items give "),
        (PIQA, put("metrics", 0, "stderr", value=0.001), "has a standard error of 0.001, but its 16 items give "),
        (PIQA, put("metrics", 0, "n", value=500), "says n = 500, but its 16 items give 16"),
        (PIQA, put("evidence", "items", value={}), "piqa.acc@0shot/limit16 has no items as its evidence"),
        (
            PIQA,
            put("metrics", 0, "id", value="piqa.acc@0shot"),
            "has piqa.acc@0shot, which is no metric of piqa@0shot/",
        ),
        (PIQA, put("evidence", "items", "acc", value="1" * 17), "piqa.acc@0shot/limit16 has 17 items, over its limit"),
        (PIQA, put("evidence", "parts", value={"a": 8, "b": 9}), "field 'evidence.parts' has 17 items, and piqa.acc"),
        (PIQA, put("metrics", value=[]), "field 'metrics' is empty, though the status is ok"),
        (PIQA, put("task", value="piqa@0shot"), "field 'task' is piqa@0shot, but the ingredients are those of piqa@0s"),
        (PIQA, put("ingredients", "limit", value=500), "field 'key' is a4ca4e9d023cfa74, but its ingredients give "),
        (PIQA, put("seed", value=3), "field 'seed' is 3, but its checkpoint's is 0"),
        (PIQA, put("status", value="fine"), "field 'status'"),
        (TEXT, put("metrics", 0, "value", value=9.0), "is 9, but its 32 windows give "),
        (TEXT, put("evidence", "windows", value=None), "has no windows as its evidence"),
        (
            TEXT,
            put("evidence", "windows", "targets", 0, value=0),
            "field 'evidence.windows.targets' has a window of 0 targets",
        ),
        (
            TEXT,
            put("evidence", "sums", value={"ppl_token": {"nll": [1.0], "targets": [0]}}),
            "field 'evidence.sums.ppl_token.targets' has a window of 0 targets",
        ),
        (
            PIQA,
            put("metrics", 0, "id", value="piqa.acc_flips@0shot/limit16"),
            "field 'metrics' has piqa.acc_flips@0shot/limit16, which a report computes",
        ),
        (
            PIQA,
            put("evidence", "chosen", value={"acc": "010"}),
            "field 'evidence.chosen.acc' has 3 answers, and 'evidence.items' 16 of it",
        ),
        (TEXT, add_bits(9.0), "bits_per_byte@128/limit32 is 9, but its 32 windows give "),
        (ARTIFACT, put("seed", value=3), "field 'seed' is 3, but the ingredients say 0"),
        (
            ARTIFACT,
            put("target", value="params=0.5"),
            "field 'target' is params=0.5, but the ingredients say params=0.2",
        ),
        (ARTIFACT, put("recovery", value="lora"), "field 'recovery' is lora, but the ingredients say none"),
        (
            ARTIFACT,
            put("ingredients", "version", value="2"),
            "field 'key' is b536a462bdf8a70f, but its ingredients give ",
        ),
        (ARTIFACT, put("model", value="llama-7b"), "field 'model' does not fit the file's place"),
        (ARTIFACT, put("widths", value="none"), "field 'widths'"),
    ],
)
def test_every_lie_is_one_sentence_with_file_and_field(tmp_path: Path, name: str, edit: Change, sentence: str) -> None:
    results = sent(tmp_path)
    path = change(results, name, edit)
    problems = check_records(results)
    assert any(str(path) in problem and sentence in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_measurement_without_its_checkpoint_is_a_problem(tmp_path: Path) -> None:
    results = sent(tmp_path)
    next(results.rglob("artifact.json")).unlink()
    assert len(check_records(results)) == 3
    assert all("the record of its checkpoint b536a462bdf8a70f is missing" in p for p in check_records(results))


def test_a_forged_key_needs_forged_evidence_too(tmp_path: Path) -> None:
    """A record with a key that fits its ingredients still has to give its metrics from its items."""
    results = sent(tmp_path)
    [path] = results.rglob("piqa*.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["ingredients"]["limit"], data["task"] = 60, "piqa@0shot/limit60"
    data["key"] = measure_key(data["ingredients"], 1)
    data["metrics"] = [{**metric, "id": metric["id"].replace("16", "60"), "n": 60} for metric in data["metrics"]]
    path.unlink()
    path.with_name(f"piqa.{data['key']}.json").write_text(json.dumps(data) + "\n", encoding="utf-8")
    assert ["n = 60" in problem for problem in check_records(results)] == [True, True]
