"""The command line as a user types it: answers, exit codes, one sentence for an error."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.record.keys import measure_key
from bench.record.store import Store
from tests.suites import here, leanboard, make_suite

OLD_RECORDS = Path(__file__).parent / "data" / "old_records"
VERBS = [
    "methods",
    "test-method",
    "new-method",
    "models",
    "tasks",
    "plan",
    "run",
    "retry",
    "status",
    "measure-speed",
    "report",
    "compare",
    "check",
    "gc",
    "why",
    "doctor",
    "data",
    "export",
]


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    ).stdout


def test_help_names_every_verb(tmp_path: Path) -> None:
    done = leanboard(tmp_path, "--help")
    assert done.returncode == 0
    assert [verb for verb in VERBS if f"  {verb} " not in done.stdout] == []


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["models"], ["tasks"], ["report"]])
def test_reading_verbs_never_import_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["LEANBOARD_CACHE"] = {str(tmp_path)!r}
os.chdir({str(tmp_path)!r})
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
sys.argv = ["leanboard", *{arguments!r}]
from bench.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = [name for name in ("torch", "transformers", "lm_eval", "peft") if name in sys.modules]
print("HEAVY", heavy)
"""
    assert "HEAVY []" in python(code)


@pytest.mark.parametrize(
    ("arguments", "most", "without"),
    [(["--help"], 200, {"pydantic", "rich", "yaml"}), (["methods", "--json"], 340, {"rich", "pandas", "numpy"})],
)
def test_help_and_methods_import_little(arguments: list[str], most: int, without: set[str]) -> None:
    """What they wait for is imports and schemas, so these are counted; the seconds are in `tests/benchmarks`."""
    code = f"""
import sys
sys.argv = ["leanboard", *{arguments!r}]
from bench.cli import main
try:
    main()
except SystemExit:
    pass
print(len(sys.modules), *sys.modules)
from bench.method import MethodConfig
print(*(cls.__name__ for cls in MethodConfig.__subclasses__() if cls.__pydantic_complete__))
"""
    modules, built = python(code).splitlines()[-2:]
    count, *names = modules.split()
    assert int(count) <= most
    assert not without & set(names)
    assert built == "", "the config of a method is built when it is first used"


def test_importing_bench_is_cheap() -> None:
    code = "import sys, bench; print([m for m in ('torch', 'transformers', 'pandas', 'pydantic') if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_methods_as_json_and_in_full(tmp_path: Path) -> None:
    rows = json.loads(here(tmp_path, "methods", "--json").stdout)
    assert {"dense", "random", "magnitude", "llm_pruner"} <= {row["method"] for row in rows}
    one = json.loads(here(tmp_path, "methods", "llm_pruner", "--json").stdout)
    assert {"paper", "quick", "default"} <= set(one["presets"])
    assert "LLM-Pruner" in one["card"]
    assert all(item["description"] for item in one["config"])
    assert "group_ratio" in here(tmp_path, "methods", "llm_pruner").stdout


def test_tasks_and_models_as_json(tmp_path: Path) -> None:
    tasks = {row["task"]: row for row in json.loads(here(tmp_path, "tasks", "--json").stdout)}
    assert tasks["wikitext2"]["protocols"] == "2048, 128"
    assert [row["kind"] for row in tasks.values()] == sorted(row["kind"] for row in tasks.values())
    one = json.loads(here(tmp_path, "tasks", "gsm8k_gold", "--json").stdout)
    assert one["data"] == ["gsm8k_gold/5shot", "gsm8k_gold/8shot"]
    assert one["texts"]["8shot"] == "gsm8k_gold/8shot"
    assert "+shuffled" in one["flags"]
    assert "8shot=gsm8k_gold/8shot" in here(tmp_path, "tasks", "gsm8k_gold").stdout
    moved = json.loads(here(tmp_path, "tasks", "divergence", "--json").stdout)
    assert "source" not in moved
    models = {row["model"]: row for row in json.loads(here(tmp_path, "models", "--json").stdout)}
    assert models["smollm2-135m"]["weights"] == "not fetched"


def test_plan_lists_cells_and_computes_nothing(tmp_path: Path) -> None:
    make_suite(tmp_path)
    rows = json.loads(here(tmp_path, "plan", "suite.yaml", "--cells", "--json").stdout)
    assert len(rows) == 2 * 4
    assert {row["status"] for row in rows} == {"to do"}
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["methods", "llm_prunner"], 2, "unknown method 'llm_prunner'; did you mean llm_pruner?"),
        (["plan", "smolm"], 2, "unknown suite 'smolm'; did you mean smollm or smollm-full?"),
        (["plan", "suite.yaml", "--only", "method"], 2, "--only method: must be KEY=VALUE"),
        (["plan", "suite.yaml", "--plugins", "nowhere"], 2, "--plugins: nowhere is not a folder"),
        (["run", "llama7b", "--offline"], 2, "--model-path llama-7b=DIR"),
        (["run", "vicuna7b", "--offline"], 2, "--model-path vicuna-7b=DIR"),
        (["run", "llama7b", "--model-path", "llama-7b=nowhere"], 2, "nowhere does not exist"),
        (["plan", "llama7b", "--weights", "rndom"], 2, "unknown kind of weights 'rndom'; did you mean random?"),
        (["why", "abc", "def"], 2, "results: there are no records under results/runs"),
        (["export", "nothing", "--to", "out"], 2, "results: there are no records under results/runs"),
        (["export", "random", "--to", "out", "--format", "onnx"], 2, "--format: unknown format 'onnx'"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    make_suite(tmp_path)
    done = here(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("leanboard:")]) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in leanboard(tmp_path, "--debug", "methods", "nothing").stderr


def test_a_foreign_record_is_named_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "results" / "runs" / "m" / "random" / "0123456789abcdef" / "artifact.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"kind": "artifact", "key": 3}')
    done = leanboard(tmp_path, "report")
    assert done.returncode == 0, done.stderr
    assert "artifact.json" in done.stderr
    assert foreign.read_text() == '{"kind": "artifact", "key": 3}'


@pytest.mark.slow
def test_report_check_fails_on_any_byte_of_difference(tmp_path: Path) -> None:
    shutil.copytree(OLD_RECORDS, tmp_path / "results")
    assert here(tmp_path, "report").returncode == 0
    whole = here(tmp_path, "report", "--check")
    assert (whole.returncode, whole.stdout) == (0, "every file is what the records give\n")
    path = tmp_path / "results" / "leaderboard.csv"
    path.write_bytes(path.read_bytes().replace(b"llm_pruner", b"LLM_pruner", 1))
    changed = here(tmp_path, "report", "--check")
    assert (changed.returncode, changed.stdout) == (1, "results/leaderboard.csv: not what the records give\n")
    assert b"LLM_pruner" in path.read_bytes()


def test_check_believes_no_record_that_contradicts_itself(tmp_path: Path) -> None:
    shutil.copytree(OLD_RECORDS, tmp_path / "sent")
    whole = here(tmp_path, "check", "sent")
    assert (whole.returncode, whole.stdout) == (0, "all 4 records are whole\n")
    [path] = (tmp_path / "sent").rglob("piqa*.json")
    path.write_text(path.read_text().replace('"acc": "1', '"acc": "0').replace('"acc": "01', '"acc": "00'))
    done = here(tmp_path, "check", "sent")
    assert done.returncode == 1
    assert f"sent/{path.relative_to(tmp_path / 'sent')}: piqa.acc@0shot/limit16 is " in done.stdout
    assert here(tmp_path, "check", "nowhere").returncode == 2


def test_gc_lists_what_no_board_shows_and_deletes_nothing(tmp_path: Path) -> None:
    shutil.copytree(OLD_RECORDS, tmp_path / "results")
    assert here(tmp_path, "gc").stdout == "all 4 records are shown\n"
    [path] = (tmp_path / "results").rglob("wikitext2*.json")
    store = Store(tmp_path / "results")
    [old] = [record for record in store.read_all()[0] if "wikitext2" in str(getattr(record, "task", ""))]
    ingredients = old.ingredients | {"engine": "perplexity/2"}
    provenance = old.provenance.model_copy(
        update={"created": old.provenance.created.replace("2026-11-23", "2026-11-24")}
    )
    newer = {"ingredients": ingredients, "key": measure_key(ingredients), "former_key": None, "provenance": provenance}
    store.write(old.model_copy(update=newer))
    rows = json.loads(here(tmp_path, "gc", "--json").stdout)
    assert rows == [
        {
            "record": f"results/{path.relative_to(tmp_path / 'results')}",
            "why": "stale: perplexity/1, and there is perplexity/2",
        }
    ]
    assert path.is_file()


def test_data_verify_finds_the_damaged_file(tmp_path: Path) -> None:
    make_suite(tmp_path)
    assert here(tmp_path, "data", "verify").returncode == 0
    file = tmp_path / "pack" / "piqa" / "validation.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    done = here(tmp_path, "data", "verify")
    assert done.returncode == 1
    assert "piqa/validation.parquet" in done.stdout
    done = here(tmp_path, "run", "suite.yaml")
    assert done.returncode == 2
    assert "piqa/validation.parquet" in done.stderr
    assert not (tmp_path / "results").exists()


def test_doctor_reports_what_it_found(tmp_path: Path) -> None:
    make_suite(tmp_path)
    done = leanboard(tmp_path, "doctor", "--json")
    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert findings["torch"]["ok"]
    assert findings["memory"]["found"].endswith("cores")
    assert done.returncode == (0 if all(row["ok"] for row in findings.values()) else 1)


@pytest.mark.slow
def test_speed_of_two_folders(tmp_path: Path, tiny_mha: Path, tiny_gqa: Path) -> None:
    arguments = ["--batch", "2", "--batch", "1", "--prompt", "6", "--new", "3", "--rounds", "2", "--json"]
    done = here(tmp_path, "measure-speed", str(tiny_mha), str(tiny_gqa), *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["protocol"] for row in rows] == ["hf/b2/p6/n3", "hf/b1/p6/n3"]
    for row in rows:
        assert 0 < row["speed-up low"] <= row["speed-up"] <= row["speed-up high"]
        assert row["possible"] > 1
        assert row["A peak MB"] is None or row["A peak MB"] > row["B peak MB"] * 0.5
    wrong = here(tmp_path, "measure-speed", str(tiny_mha), str(tiny_gqa), "--backend", "hv")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("leanboard: --backend: unknown backend 'hv'; ")
