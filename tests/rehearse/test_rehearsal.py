"""A rehearsal from the command line to its table, on a user's own model and methods."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.measure.generation.process_client import ProcessClient
from bench.record.store import Store
from tests.suites import here, make_suite

Ended = subprocess.CompletedProcess[str]

METHOD = """
from bench.method import Method, Traits

class {name}(Method):
    "A plug-in."
    name, version = "{name}", "1"
    traits = Traits(title="{name}", track="control", changes=frozenset({{"values"}}))

    def compress(self, model, ctx):
        {body}
"""


def plugin(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(METHOD.format(name=name, body=body))
    return folder


def table(ended: Ended) -> list[str]:
    """The lines of the table and after it, with single spaces."""
    lines = [" ".join(line.split()) for line in ended.stdout.strip().splitlines()]
    return lines[lines.index("row cell status seconds made-up data why it failed") + 1 :]


def rehearse(root: Path, *arguments: str, **changes: Any) -> Ended:
    """Rehearse a suite of a tiny model as a user would; a short name of the model keeps the table's lines whole."""
    suite = make_suite(root, **{"models": ["./tiny"], **changes})
    return here(root, "run", str(suite), "--rehearse", *arguments)


@pytest.mark.slow
def test_every_cell_ends_in_the_table_whatever_a_method_does(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "plugins", "raises", "raise ValueError('no such layer')")
    plugin(folder, "exits", "import sys; sys.exit(7)")
    ended = rehearse(
        tmp_path,
        "--plugins",
        str(folder),
        methods=["raises", "exits", "dense"],
        tasks=["size", "boolq", "wikitext2@128", "mmlu@5shot", "hellaswag@2shot+chat"],
    )
    assert ended.returncode == 3, ended.stderr
    lines = table(ended)
    assert sum("compress failed" in line for line in lines) == 2
    assert "no such layer" in ended.stdout
    assert "asked the process to exit (code 7)" in ended.stdout
    assert sum(" skipped 0.0 " in line for line in lines) == 10
    assert [line.split(" seed 0 ")[1].split()[:2] for line in lines if "dense · default · seed 0" in line] == [
        ["compress", "ok"],
        ["size@64", "ok"],
        ["boolq@0shot/limit2", "ok"],
        ["wikitext2@128/limit2", "ok"],
        ["mmlu@5shot/limit2", "ok"],
        ["hellaswag@2shot+chat/limit2", "ok"],
    ]
    home = tmp_path / "cache" / "rehearsals" / "tiny"
    assert lines[-1].startswith("rehearsed 18 cells in ")
    assert lines[-1].endswith(f"12 failed; report and records are in {home / 'results'}")
    assert (home / "results" / "leaderboard.csv").exists()
    assert sorted(file.name for file in home.iterdir()) == ["results"]
    assert len(Store(home / "results").read_all()[0]) == 18
    assert not (tmp_path / "results").exists()
    assert {file.name for file in (tmp_path / "cache").iterdir()} <= {"rehearsals", "fingerprints.json", "wheels"}
    assert list((tmp_path / "cache").rglob("*.whl")) == []


@pytest.mark.slow
def test_each_model_of_a_suite_has_a_stand_in_of_its_own(tmp_path: Path) -> None:
    suite = {"models": ["llama3.2-1b", "mistral-7b-v0.3"], "methods": ["dense"], "tasks": ["size"]}
    both = table(rehearse(tmp_path, **suite))
    assert both[-1].startswith("rehearsed 4 cells in ")
    assert [line.split()[0] for line in both[:4]] == [model for model in suite["models"] for _ in range(2)]
    one = table(rehearse(tmp_path, "--only", "model=mistral-7b-v0.3", **suite))
    assert one[-1].startswith("rehearsed 2 cells in ")


@pytest.mark.slow
def test_a_text_that_is_too_short_for_the_real_amounts_is_reported(tmp_path: Path) -> None:
    """The rehearsal itself takes short windows, and would not notice."""
    wanda = {"name": "wanda_sp", "config": {"calibration_samples": 100, "seq_len": 512}}
    ended = rehearse(tmp_path, methods=["dense", wanda], tasks=["size"])
    assert ended.returncode == 3, ended.stdout
    [doubt] = [line for line in table(ended) if line.startswith("the run itself may stop: ")]
    assert "wanda_sp (default): calibration: lambada_passages/test: seems to be too short" in doubt
    assert doubt.endswith("for 100 windows of 512 tokens")
    assert ", 0 failed; " in table(ended)[-1]


@pytest.mark.slow
def test_generation_starts_no_process_and_made_up_data_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessClient, "__init__", lambda *_: pytest.fail("a process was started"))
    ended = rehearse(
        tmp_path,
        methods=["dense", {"name": "random", "recovery": {"name": "lora", "steps": 400, "holdout": 50}}],
        training={"data": "alpaca_cleaned/train"},
        tasks=["generate@hf/b1-64/p64/n32"],
    )
    assert ended.returncode == 0, ended.stdout
    lines = table(ended)
    assert sum("generate@hf/b1-2/p4/n2 ok" in line for line in lines) == 2
    [row] = [line for line in lines if line.endswith(" alpaca_cleaned/train")]
    assert "lora" in row
    assert " compress ok " in row
    assert "note: alpaca_cleaned/train is made up: " in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "random"], "--rehearse: --weights does not go with it"),
        (["--results", "elsewhere"], "--rehearse: --results does not go with it"),
        (["--executor", "ray"], "--rehearse: --executor does not go with it"),
        (["--only", "method"], "--only method: must be KEY=VALUE"),
        (["--model-path", "llama-7b=nowhere"], "model llama-7b: the folder nowhere does not exist"),
    ],
)
def test_what_does_not_go_with_it_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    ended = here(tmp_path, "run", "llama7b", "--rehearse", *arguments)
    assert (ended.returncode, ended.stderr) == (2, f"leanboard: {sentence}\n")


def test_an_unknown_suite_is_one_sentence(tmp_path: Path) -> None:
    ended = here(tmp_path, "run", "lama7b", "--rehearse")
    assert ended.returncode == 2
    assert "unknown suite 'lama7b'; did you mean llama7b" in ended.stderr


def test_an_engine_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    ended = rehearse(tmp_path, tasks=["generate@vllm/b1/p32/n12"])
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(
        "leanboard: suite tiny: task generate@vllm/b1/p2/n2: vLLM is not installed"
    )
