"""From a suite to its rehearsal: the same methods, presets, recoveries, targets and tasks, in small amounts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bench.record.provenance import accelerator_name
from bench.registry import Registry, tasks_named
from bench.rehearse.amounts import Scale, shrunk, shrunk_recovery
from bench.run.entries import PlanEntry
from bench.suite import FirstOf, Suite, SuiteMethod, TextSource
from bench.task import GENERATION, Task

ITEMS = 2
"""Items of an accuracy task, windows of a perplexity."""
CONTINUED = re.compile(r"^n\d+$")


def refs_of(suite: Suite, registry: Registry) -> list[str]:
    """Every file of the data pack that the suite reads, and those of alternative tasks."""
    entries = [entry for item in suite.methods for entry in PlanEntry.all_of(item, registry, suite)]
    found = {text.data for entry in entries for text in (entry.calibration, entry.training) if text is not None}
    names = [name for entry in suite.tasks for name in _names(entry)]
    names += [name for method in suite.methods for name in method.tasks]
    for name in names:
        found |= {ref for task in tasks_named(name, where=f"suite {suite.name}: tasks") for ref in task.data()}
    return sorted(found)


def small_suite(suite: Suite, model: str, registry: Registry, scale: Scale, made_up: Collection[str]) -> Suite:
    """`suite` for one of its models, shrunk to the stand-in.

    Of alternative tasks the first is taken whose data is real.
    """
    methods: list[SuiteMethod] = []
    for item in suite.methods:
        for plan_entry in PlanEntry.all_of(item, registry, suite):
            small = _method(plan_entry, scale)
            methods += [small] * (small not in methods)
    tasks = [small for entry in suite.tasks for small in _tasks(entry, made_up)]
    device = "cpu" if suite.device == "cuda" and accelerator_name() is None else suite.device
    changes: dict[str, Any] = {"models": [model], "methods": methods, "tasks": list(dict.fromkeys(tasks))}
    texts = {
        "calibration": _whole(suite.calibration),
        "calibrations": [_whole(text) for text in suite.calibrations],
        "training": _whole(suite.training),
    }
    return suite.model_copy(update=changes | texts | {"device": device})


def small_task(task: Task) -> Task:
    """The task with few items, or few and short sequences."""
    if task.spec.has_limit:
        return replace(task, limit=min(task.limit or ITEMS, ITEMS))
    if match := GENERATION.match(task.protocol):
        batch, prompt, new = (int(match[name]) for name in ("batch", "prompt", "new"))
        sweep = "-2" if match["most"] else ""
        first = 1 if sweep else min(batch, 2)
        work = f"b{first}{sweep}/p{max(2, prompt // 16)}/n{max(2, new // 32)}"
        return replace(task, protocol=f"{match['backend']}/{work}")
    return replace(task, protocol="n4") if CONTINUED.match(task.protocol) else task


def _method(plan_entry: PlanEntry, scale: Scale) -> SuiteMethod:
    item, cls = plan_entry.item, plan_entry.entry.cls
    changed = shrunk(cls.Config.model_validate(plan_entry.config), scale)
    return item.model_copy(
        update={
            "config": item.config | changed,
            "recovery": shrunk_recovery(plan_entry.recovery, scale) or "none",
            **{name: _whole(value) for name, value in item if isinstance(value, TextSource)},
            "tasks": [small_task(task).id for name in item.tasks for task in tasks_named(name)],
        }
    )


def _tasks(entry: str | FirstOf, made_up: Collection[str]) -> list[str]:
    choices = [tasks_named(name) for name in _names(entry)]
    real = [tasks for tasks in choices if not {ref for task in tasks for ref in task.data()} & set(made_up)]
    return [small_task(task).id for task in [*real, *choices][0]]


def _names(entry: str | FirstOf) -> list[str]:
    return entry.first_of if isinstance(entry, FirstOf) else [entry]


def _whole(source: TextSource | None) -> TextSource | None:
    """The pack of a rehearsal holds the first rows alone."""
    return source and source.model_copy(update={"rows": None})
