"""Every built-in suite and task builds: its methods, presets, recoveries and tasks exist and fit."""

from pathlib import Path
from typing import Any

import pytest

from bench.blocks.recoveries import resolve_recovery
from bench.errors import UsageError
from bench.registry import load_registry, load_tasks, task_groups, tasks_named
from bench.report.published import HERE, load_published
from bench.run.entries import PlanEntry
from bench.suite import FirstOf, Suite, TextSource, load_suite

SUITES = sorted((Path(__file__).parents[1] / "tasks" / "suites").glob("*.yaml"))


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_suite_builds(file: Path) -> None:
    suite = load_suite(str(file))
    assert suite.name == file.stem
    assert load_suite(file.stem) == suite
    registry = load_registry()
    for item in suite.methods:
        entry = registry.method(item.name)
        entry.config(entry.preset(item.preset), item.config)
        if isinstance(item.recovery, dict):
            resolve_recovery(item.recovery, suite.name)
    for wanted in suite.tasks:
        names = wanted.first_of if isinstance(wanted, FirstOf) else [wanted]
        assert all(tasks_named(name) for name in names)
    assert "dense" in {item.name for item in suite.methods}, "speed-ups and changes need the dense row"


def test_the_suites_of_7b_hold_every_method_by_its_paper() -> None:
    llama, vicuna = load_suite("llama7b"), load_suite("vicuna7b")
    assert llama.methods == vicuna.methods
    assert llama.recoveries == vicuna.recoveries
    built_in = {name for name, entry in load_registry().methods.items() if entry.origin == "built in"}
    assert {item.name for item in llama.methods} == built_in
    assert {item.name for item in load_suite("llama13b").methods} == built_in
    assert all(item.preset.startswith("paper") for item in llama.methods if item.name != "dense")
    texts = {method: text.data for method in built_in for text in _texts_of(llama, method)}
    assert texts["llm_pruner"] == texts["saap"] == "bookcorpus/train"
    assert (texts["wanda_sp"], texts["layer_drop"]) == ("wikitext2_raw/train", "c4/train")
    assert texts["lora"] == "alpaca_cleaned/train"
    published = resolve_recovery(load_registry().method("llm_pruner").preset("paper").recovery, "")
    assert resolve_recovery(llama.recoveries[1], "") == published  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "model"), [("llama7b", "llama-7b"), ("llama13b", "llama-13b")])
def test_published_rows_at_the_sizes_of_a_suite_name_rows_of_it(name: str, model: str) -> None:
    """Else a published number would stand next to none of ours, whatever was run."""
    suite, registry = load_suite(name), load_registry()
    rows, sizes = set(), {"none"}
    for item in suite.methods:
        for entry in PlanEntry.all_of(item, registry, suite):
            for target, _ in entry.points(suite):
                recovery = entry.recovery["name"] if entry.recovery else "none"
                rows.add((item.name, item.preset, recovery, str(target or "none")))
                sizes.add(str(target or "none"))
    ours = {published.row.ours for published in load_published(HERE) if published.row.ours}
    named = {row for row in ours if row.model == model and row.target in sizes}
    assert {"llm_pruner", "random", "magnitude", "wanda_sp", "dense"} <= {row.method for row in named}
    assert [row for row in named if (row.method, row.preset or "default", row.recovery, row.target) not in rows] == []


def _texts_of(suite: Suite, method: str) -> list[TextSource]:
    """What a method of the suite reads, its calibration text last."""
    registry, items = load_registry(), [item for item in suite.methods if item.name == method]
    entries = [entry for item in items for entry in PlanEntry.all_of(item, registry, suite)]
    return [text for entry in entries for text in (entry.training, entry.calibration) if text is not None]


def test_every_preset_of_every_method_resolves() -> None:
    for entry in load_registry().methods.values():
        assert {"default", "quick"} <= set(entry.presets()), entry.name
        for preset in entry.presets().values():
            entry.config(preset)
            resolve_recovery(preset.recovery, entry.name)


def test_group_members_are_tasks_with_that_metric() -> None:
    said, group = task_groups()
    tasks: Any = load_tasks()
    assert (said.name, group.name) == ("can_say", "commonsense7")
    assert [f"{task.spec.name}.bpb@{task.protocol}" for task in tasks_named("can_say")] == list(said.members)
    assert len(group.members) == 7
    for member in group.members:
        name, metric = member.split(".")
        assert metric == tasks[name].headline
        assert {"acc"} <= set(tasks[name].metrics)


def test_metric_ids_name_their_task() -> None:
    assert [task.id for task in tasks_named("wikitext2.ppl_token@128/limit4")] == ["wikitext2@128/limit4"]
    assert [task.id for task in tasks_named("hellaswag.acc_norm@0shot")] == ["hellaswag@0shot"]
    assert [task.id for task in tasks_named("params.stored")] == ["size@64"]
    assert [task.id for task in tasks_named("generate@hf/b1/p64/n128")] == ["generate@hf/b1/p64/n128"]
    assert [task.id for task in tasks_named("piqa", limit=5)] == ["piqa@0shot/limit5"]
    assert len(tasks_named("commonsense7/limit20")) == 7


def test_a_grid_stands_for_its_generation_tasks() -> None:
    assert [task.id for task in tasks_named("generate@hf/grid")] == [
        "generate@hf/b1/p64/n128",
        "generate@hf/b8/p128/n128",
        "generate@hf/b8/p512/n128",
    ]
    assert [task.id for task in tasks_named("generate@hf/sweep")] == ["generate@hf/b1-64/p64/n32"]
    assert tasks_named("generate")[0].settings()["task"].keys() == {"name", "version", "kind", "rounds"}
    for wrong in ("hf/b4-7/p8/n8", "hf/gird", "b1/p8/n8"):
        with pytest.raises(UsageError, match=f"task generate: protocol '{wrong}'"):
            tasks_named(f"generate@{wrong}")


def test_what_is_calibrated_on_is_not_what_is_measured() -> None:
    """Perplexity with a limit reads a text from its first row on, so calibration on the same text starts later."""
    from bench.api import PASSAGES

    tasks: Any = load_tasks()
    measured = {task.text for task in tasks.values() if task.kind == "perplexity"}
    assert PASSAGES.data in measured
    texts = [PASSAGES]
    for file in SUITES:
        suite = load_suite(str(file))
        names = {name for wanted in suite.tasks for name in ([wanted] if isinstance(wanted, str) else wanted.first_of)}
        read = {ref for name in names for task in tasks_named(name) for ref in task.data()}
        own = [method.calibration for method in suite.methods if method.calibration]
        texts += [text for text in (*suite.texts(), *own) if text.data in read]
    assert len(texts) == 4
    assert all(text.rows is not None and text.rows[0] >= 2000 for text in texts)
