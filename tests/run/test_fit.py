"""What does not fit is listed by a plan, skipped with a record by a run, and taken up where there is room."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from bench.cli.common import app
from bench.record.store import Store
from bench.registry import load_registry
from bench.run import estimate
from bench.run.plan import Plan, make_plan
from bench.suite import load_suite
from tests.suites import environment, make_suite


def planned(suite: str, results: Path, *, listing: bool = True) -> Plan:
    return make_plan(
        load_suite(suite),
        load_registry(),
        results,
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
        listing=listing,
    )


def with_card(monkeypatch: pytest.MonkeyPatch, gigabytes: int) -> None:
    """A machine with a GPU of so much memory, as its driver reports it."""
    for room in ("plan", "work"):
        monkeypatch.setattr(f"bench.run.{room}.accelerator_name", lambda: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(estimate, "accelerator_memory", lambda: gigabytes * 2**30)


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_suite(tmp_path, methods=["dense", "random"], tasks=["size"])
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "rows"), [("llama7b", 41), ("vicuna7b", 41)])
def test_every_row_of_7b_fits_a_card_of_24_gb(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checkpoints can be made there, by training too, and all cells measured; no weights or data are here."""
    with_card(monkeypatch, 24)
    plan = planned(name, tmp_path)
    assert len(plan.jobs) == rows
    assert {job.artifact.device for job in plan.jobs} == {"cuda"}
    assert plan.misfits == {}, "speed is measured in turns"
    assert any("weights are not here (to be fetched: about 13.5 GB)" in note for note in plan.notes)
    assert plan.keyless == set(plan.all_keys())


def test_the_key_of_a_speed_says_where_one_card_does_not_hold_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machines() -> dict[str, str | None]:
        cells = [cell for job in planned("llama7b", tmp_path).jobs for cell in job.cells]
        return {cell.kind: cell.ingredients.get("machine") for cell in cells}

    with_card(monkeypatch, 24)
    whole = machines()
    with_card(monkeypatch, 14)
    monkeypatch.setattr("bench.run.plan.accelerator_ids", lambda: ["0", "1"])
    spread = machines()
    assert spread["generation"] == f"{whole['generation']}/spread over 2 GPUs"
    assert spread | {"generation": whole["generation"]} == whole


def test_what_does_not_fit_a_small_card_is_said_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.views import plan_rows

    with_card(monkeypatch, 14)
    notes = {row["note"] for row in plan_rows(planned("llama7b", tmp_path))}
    assert notes == {"", "spread over GPUs and the CPU's memory, slower"}
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=0))
    *rows, total = plan_rows(planned("llama7b", tmp_path))
    assert {row["memory (GB)"] > 14 * 1.0737 for row in rows if row["to do"].startswith("0 ")} <= {True}
    fits = {(row["method"], row["recovery"], row["target"]): not row["to do"].startswith("0 ") for row in rows}
    assert fits["llm_pruner", "none", "params=0.2"]
    assert not fits["lora", "none", "none"]
    assert total["model"] == "all"
    assert total["hours"] == pytest.approx(sum(row["hours"] for row in rows), abs=0.5)


@pytest.mark.slow
def test_a_row_that_does_not_fit_is_skipped_and_a_larger_machine_takes_it_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("suite.yaml", folder / "results", listing=False)
    dense, pruned = (plan.estimates[job.artifact.key].needs[job.artifact.key] for job in plan.jobs)
    assert dense == pruned
    larger = {job.artifact.key: job.artifact.method for job in plan.jobs}
    needs = estimate._stages
    monkeypatch.setattr(  # one method that takes more than there is
        estimate, "_stages", lambda cell, *rest: [1e15 * (cell.method == "random"), *needs(cell, *rest)]
    )
    [row] = [row for row in json.loads(run("plan", "suite.yaml", "--json").stdout) if row["method"] == "random"]
    assert (row["to do"], row["note"][:43]) == ("0 of 2", "2 cells do not fit: needs about 1000000.4 G")
    run("run", "suite.yaml", "--executor", "inline", code=3)
    records = {r.key: r for r in Store(folder / "results").read_all()[0]}
    assert {(larger.get(r.key, r.kind), r.status) for r in records.values()} == {
        ("dense", "ok"),
        ("measure", "ok"),
        ("random", "skipped"),
        ("measure", "skipped"),
    }
    assert {r.error.code for r in records.values() if r.error} == {"does_not_fit"}
    monkeypatch.setattr(estimate, "_stages", needs)
    run("run", "suite.yaml", "--executor", "inline")
    assert {r.status for r in Store(folder / "results").read_all()[0]} == {"ok"}


def test_where_nothing_fits_a_run_ends_in_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10**8))
    done = run("plan", "suite.yaml", "--cells", "--json")
    assert {row["status"] for row in json.loads(done.stdout)} == {"does not fit"}
    with pytest.raises(Exception, match=r"nothing that is to be done fits: tiny-\w+ · dense · .*needs about 0\.4 GB"):
        run("run", "suite.yaml")
    assert not (folder / "results").exists()


def test_the_gpu_that_does_not_say_its_memory_refuses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.run.fit import misfits

    plan = planned("suite.yaml", folder / "results")
    on_gpu: Any = [
        job.model_copy(update={"artifact": job.artifact.model_copy(update={"device": "cuda"})}) for job in plan.jobs
    ]
    monkeypatch.setattr(estimate, "accelerator_memory", lambda: 100_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=0))
    reasons = misfits(on_gpu, plan.estimates)
    assert len(reasons) == len(plan.all_keys())
    assert {reason.partition(",")[2] for reason in reasons.values()} == {" and 1 GPU and the CPU together have 0.1"}
    monkeypatch.setattr(estimate, "accelerator_memory", lambda: None)
    assert misfits(on_gpu, plan.estimates) == {}


def test_only_weights_are_spread_so_that_training_must_fit_where_they_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.run.fit import misfits

    plan = planned("suite.yaml", folder / "results")
    cell = plan.jobs[0].artifact
    job: Any = plan.jobs[0].model_copy(update={"artifact": cell.model_copy(update={"device": "cuda"}), "cells": []})
    monkeypatch.setattr(estimate, "accelerator_memory", lambda: 16 * 10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 10**9))

    def reason(weights: int, needed: int) -> str | None:
        takes = replace(plan.estimates[cell.key], weights=weights * 10**8, needs={cell.key: needed * 10**9})
        return misfits([job], {cell.key: takes}).get(cell.key)

    assert reason(135, 15) is None
    assert reason(135, 20) == "needs about 20.0 GB of memory, and a GPU has 16.0"
    assert reason(136, 20) is None, "it is spread"
    assert reason(136, 90) == "needs about 90.0 GB of memory, and 1 GPU and the CPU together have 80.0"
