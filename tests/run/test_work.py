"""Counted times against arithmetic by hand, and against the records of real runs on two cores."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.catalogue import CATALOGUE
from bench.registry import load_registry, tasks_named
from bench.run import passes, work
from bench.run.passes import _passes
from bench.run.plan import Plan, make_plan
from bench.shape import Shape
from bench.suite import load_suite

RESULTS = Path(__file__).parents[2] / "results" / "full" / "runs"


def planned(name: str, results: Path) -> Plan:
    return make_plan(
        load_suite(name),
        load_registry(),
        results,
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
        listing=True,
    )


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("plan", "work"):
        monkeypatch.setattr(f"bench.run.{room}.accelerator_name", lambda: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr("bench.run.estimate.accelerator_memory", lambda: 80 * 2**30)


def test_seconds_are_operations_over_the_rate_or_bytes_over_the_bandwidth() -> None:
    machine = work.Machine(rate=1e12, rate32=1e11, bandwidth=1e9)
    assert work.Work(operations=4e12).seconds(machine) == 4
    assert work.Work(operations=4e12, operations32=1e11, read=2e9).seconds(machine) == 5
    assert work.Work(operations=1e12, read=3e9, files=0.7e9).seconds(machine) == 4


@pytest.mark.usefixtures("a_card")
def test_llama_7b_takes_what_its_operations_say(tmp_path: Path) -> None:
    """By hand: 6.6 G products a token, twice; 49,760 examples of 178 tokens, twice, three passes each; 125 TFLOP/s."""
    plan = planned("llama7b", tmp_path)
    times = {}
    for job in plan.jobs:
        takes, cell = plan.estimates[job.artifact.key], job.artifact
        times[cell.method, cell.preset, cell.recovery_name] = takes.counted
        assert {takes.time_of(key)[1] for key in takes.counted} == {"count"}

    def of(*row: str) -> dict[str, float]:
        [job] = [
            job for job in plan.jobs if (job.artifact.method, job.artifact.preset, job.artifact.recovery_name) == row
        ]
        counted: Any = plan.estimates[job.artifact.key].counted
        return {"compress": counted[job.artifact.key]} | {cell.task: counted[cell.key] for cell in job.cells}

    products = 2 * 6.607e9
    training = 3 * 2 * 49_760 * 178 * products / 1.25e14
    assert of("lora", "paper7b", "none")["compress"] == pytest.approx(training, rel=0.15)
    assert of("llm_pruner", "paper", "lora")["compress"] == pytest.approx(0.8 * training, rel=0.15)
    assert of("llm_pruner", "paper", "none")["compress"] < 120
    dense = of("dense", "default", "none")
    [hellaswag] = [seconds for task, seconds in dense.items() if task.startswith("hellaswag")]
    assert hellaswag == pytest.approx(0.7 * 3_097_681 * products / 1.25e14, rel=0.1)
    [alone] = [seconds for task, seconds in dense.items() if task.startswith("generate@hf/b1/")]
    assert alone == pytest.approx(2 * 13.5e9 / (0.7 * 1.6e12) * 128 * 12, rel=1.0)
    hours = sum(sum(filter(None, takes.counted.values())) for takes in plan.estimates.values()) / 3600
    assert 20 < hours < 400


def test_a_kind_that_nothing_is_known_of_has_no_time() -> None:
    assert _passes(object(), "", None, 1024) is None  # type: ignore[arg-type]


def test_examples_are_counted_for_each_item_or_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "size_of", lambda ref: (100, 7000.0))

    def tokens(task: str) -> float:
        [found] = tasks_named(task)
        read = passes._passes(found.spec, found.protocol, found.limit, 1024)
        assert read is not None
        return read.tokens

    assert tokens("piqa@0shot/limit10") == 10 * 70
    assert tokens("piqa@5shot/limit10") == 10 * 70 * 6
    assert tokens("piqa@5shot+first_n/limit10") == 10 * 70 + 5 * 70
    assert tokens("mmlu@5shot/limit1") == 57 * 70 + 57 * 5 * 70
    assert tokens("csqa@5shot/limit10") == 10 * 70  # rendered: what repeats takes no room in the file


def test_own_answers_take_their_prompts_and_a_pass_for_each_token_of_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand: prompts of 70 tokens, or 420 with examples; 4096 tokens hold 30 rows, or 8."""
    monkeypatch.setattr(passes, "size_of", lambda ref: (1319, 1319 * 70.0))
    for protocol, prompt, rows in (("0shot", 70, 30), ("5shot", 420, 8)):
        [task] = tasks_named(f"gsm8k@{protocol}/limit120")
        read = passes._passes(task.spec, task.protocol, task.limit, 1024)
        assert read is not None
        assert read.tokens == 120 * (prompt + passes.ANSWER)
        assert read.times == 120 / rows * (1 + passes.LONGEST)


@pytest.mark.slow
def test_counts_are_of_the_size_that_committed_records_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`smollm-full` on two cores that other work shared: the median of each kind within a factor of 3."""
    monkeypatch.setattr("bench.run.work.psutil.cpu_count", lambda logical: 2)
    plan, taken = planned("smollm-full", tmp_path), dict[tuple[str, ...], float]()
    for file in RESULTS.rglob("*.json"):
        record = json.loads(file.read_text())
        taken[_row(record, record.get("task", "compress"))] = record["provenance"]["seconds"]
    ratios: dict[str, list[float]] = {}
    for job in plan.jobs:
        takes, cell = plan.estimates[job.artifact.key], job.artifact
        row = {"method": cell.method, "preset": cell.preset, "recovery": cell.recovery_name, "target": cell.target_name}
        for key, kind, task in [(cell.key, "compress", "compress"), *((c.key, c.kind, c.task) for c in job.cells)]:
            seconds = taken.get(_row(row, task))
            if seconds and takes.counted[key]:
                ratios.setdefault(kind, []).append((takes.counted[key] or 0) / seconds)
    print({kind: (round(median(found), 2), len(found)) for kind, found in ratios.items()})
    assert {"compress", "accuracy", "perplexity"} <= set(ratios)
    for kind in ("compress", "accuracy", "perplexity"):
        assert 1 / 3 < median(ratios[kind]) < 3, kind


def _row(content: dict[str, Any], task: str) -> tuple[str, ...]:
    return (*(content[name] for name in ("method", "preset", "recovery", "target")), task)


def test_the_shape_alone_is_enough() -> None:
    """The number of operations of a token is twice the parameters that multiply it, the embedding's left out."""
    shape = Shape.of(CATALOGUE["llama-7b"].config)
    assert work._operations(shape, 1, 1) == pytest.approx(2 * (shape.params() - 32_000 * 4096), rel=0.001)
