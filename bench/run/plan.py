"""From a suite to cells: models and data are fetched, settings resolved, keys computed. No torch.

All errors that can be found cheaply are found here, before any heavy work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bench.data.files import read_json
from bench.data.lengths import shortfall
from bench.data.pack import Pack
from bench.data.sources import ensure
from bench.errors import UsageError, unknown
from bench.protocol import why_not_for
from bench.random_weights import Recipe, without_quality
from bench.record.provenance import accelerator_ids, accelerator_name, machine_fingerprint
from bench.record.store import Store
from bench.registry import Registry, tasks_named
from bench.run.agreement import sources_of
from bench.run.cells import NOT_HERE, ArtifactCell, Job, MeasureCell, chat_ingredients, measure_ingredients
from bench.run.entries import PlanEntry
from bench.run.estimate import Estimate, estimates_of, is_spread, past_seconds
from bench.run.fit import misfits
from bench.run.models import keyless, random_models, real_models
from bench.run.threads import threads_each
from bench.run.work import BYTES
from bench.shape import Shape
from bench.suite import FirstOf, Suite, TextSource
from bench.task import Task, kind_of_task

Say = Callable[[str], None]
FILTERS = ("model", "method", "preset", "recovery", "target", "calibration", "seed", "task")


@dataclass
class Plan:
    """Every cell of a suite, finished ones included, and notes that the user should read before the run."""

    jobs: list[Job]
    finished: set[str]
    notes: list[str] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """By key of the checkpoint."""
    misfits: dict[str, str] = field(default_factory=dict)
    """Cells that this machine cannot hold, by key, with the reason."""
    whole: dict[str, list[str]] = field(default_factory=dict)
    """Keys of all measurements of each checkpoint by its key, those included that a filter leaves out."""
    keyless: set[str] = field(default_factory=set)
    """Keys that mean nothing yet, because weights or data of the cells are not here: in plans that are only listed."""

    def make_weights(self, say: Say) -> None:
        """Make the random weights that open jobs start from."""
        for recipe in self.unmade():
            recipe.make(say)

    def unmade(self) -> list[Recipe]:
        """Recipes of weights that open jobs start from and that are not made yet."""
        needed = {job.artifact.weights for job in self.open_jobs()}
        return [recipe for recipe in self.recipes if recipe.folder in needed and not recipe.folder.is_dir()]

    def open_jobs(self) -> list[Job]:
        """The jobs that are not finished, each with its open cells only."""
        left = [
            job.model_copy(update={"cells": [c for c in job.cells if c.key not in self.finished]}) for job in self.jobs
        ]
        return [job for job in left if job.cells or job.artifact.key not in self.finished]

    def all_keys(self) -> list[str]:
        """Keys of all cells, finished or not."""
        return [key for job in self.jobs for key in (job.artifact.key, *(c.key for c in job.cells))]


def make_plan(
    suite: Suite,
    registry: Registry,
    results: Path,
    *,
    model_paths: Mapping[str, Path],
    plugins: Sequence[Path],
    only: Mapping[str, str],
    offline: bool,
    command: Sequence[str],
    say: Say,
    random_weights: bool = False,
    trust_remote_code: bool = False,
    listing: bool = False,
) -> Plan:
    """Resolve `suite` into jobs, and fetch what is missing.

    Args:
        model_paths: model id -> folder or hub id, used in place of the catalogue's source.
        plugins: folders that the workers must look for methods in, too.
        only: filters by `FILTERS`; cells that do not fit are left out.
        command: what the user typed, for the records.
        random_weights: models of the same shapes with random weights instead, measured in size and speed alone.
        trust_remote_code: let a model's own code run once, to be compared with its family's (`bench.foreign`).
        listing: the plan is only to be shown: weights of the hub that are not here are not fetched, and data that
            are not available are no error; each gets a note, and the cells have no key yet.

    Raises:
        UsageError: an unknown name, or a model, data file or engine that is not available.
    """
    _check_filters(only)
    suite, left_out = without_quality(suite) if random_weights else (suite, [])
    entries = [plan_entry for item in suite.methods for plan_entry in PlanEntry.all_of(item, registry, suite)]
    wanted = [_choices(entry, suite) for entry in suite.tasks]
    models = (
        random_models(suite.models, model_paths, suite.dtype)
        if random_weights
        else real_models(suite.models, model_paths, offline, trust_remote_code, say, listing)
    )
    tasks, notes = _choose_tasks(wanted, suite, offline, say, listing)
    notes += _ensure_own(entries, suite, offline, say, listing, texts=not random_weights)
    device, accelerator = _device(suite.device)
    common = {"results": results, "plugins": list(plugins), "command": list(command), "accelerator": accelerator}
    plan = Plan([], set(), [*left_out, *models.notes, *dict.fromkeys(notes)], models.recipes)
    for ref, plan_entry in product(models.refs, entries):
        of_model = {"remote_code": ref.remote_code, "revision": ref.revision}
        for target, seed in plan_entry.points(suite):
            artifact = plan_entry.cell(ref, target, seed, suite, device, models.tokens(ref))
            if _fits(artifact, only):
                mine = {task.id: task for task in [*tasks, *plan_entry.own_tasks]}.values()
                every = [(task, _measure_cell(artifact, task, accelerator, models.configs)) for task in mine]
                plan.whole.setdefault(artifact.key, []).extend(cell.key for _, cell in every)
                cells = [cell for task, cell in every if _asked(task, only)]
                sources = sources_of(plan_entry.entry, ref.path)
                plan.jobs.append(Job(artifact=artifact, cells=cells, sources=sources, **of_model, **common))
    if not any(job.cells for job in plan.jobs):
        raise UsageError(f"--only {' '.join(f'{k}={v}' for k, v in only.items())}: no cell of the suite fits")
    _fill_in(plan, Store(results), registry, accelerator, models.configs)
    _check(plan, suite)
    return plan


def _fill_in(
    plan: Plan, store: Store, registry: Registry, accelerator: str | None, configs: Mapping[Path, Mapping[str, Any]]
) -> None:
    """Fill in the plan's finished cells, the estimates, what does not fit, and what has no key yet."""
    plan.keyless = keyless(plan.jobs)
    plan.finished = {key for key in plan.all_keys() if store.finished(key)}
    plan.estimates = estimates_of(plan.jobs, configs, registry, past_seconds(store.results, accelerator))
    plan.misfits = misfits(plan.open_jobs(), plan.estimates)


def _machine(artifact: ArtifactCell, accelerator: str | None, config: Mapping[str, Any] | None) -> str:
    """What speed depends on: the machine, its threads and, where one GPU does not hold the dense model, how many do."""
    found = f"{machine_fingerprint(accelerator)}/{threads_each(1)} threads"
    if artifact.device != "cuda":
        return found
    file = artifact.weights / "config.json"
    weights = BYTES[artifact.dtype] * Shape.of(config or read_json(file), file).params()
    return f"{found}/spread over {len(accelerator_ids())} GPUs" if is_spread(weights, artifact.device) else found


def _measure_cell(
    artifact: ArtifactCell, task: Task, accelerator: str | None, configs: Mapping[Path, Mapping[str, Any]]
) -> MeasureCell:
    pack = Pack.default()
    data = {ref: pack.fingerprint(ref) if pack.has(ref) else NOT_HERE for ref in task.data()}
    machine = _machine(artifact, accelerator, configs.get(artifact.weights)) if task.spec.is_timed else None
    ingredients = measure_ingredients(
        artifact.key, task, data, task.spec.engine, artifact.dtype, artifact.device, machine
    )
    ingredients |= chat_ingredients(task, artifact.weights)
    return MeasureCell(task=task.id, kind=task.spec.kind, ingredients=ingredients)


def _choices(entry: str | FirstOf, suite: Suite) -> list[list[Task]]:
    names = entry.first_of if isinstance(entry, FirstOf) else [entry]
    return [tasks_named(name, where=f"suite {suite.name}: tasks") for name in names]


def _choose_tasks(
    wanted: Sequence[Sequence[Sequence[Task]]], suite: Suite, offline: bool, say: Say, listing: bool
) -> tuple[list[Task], list[str]]:
    """The tasks to run: of several choices the first whose data is available, with a note where that is a later one."""
    every = {ref for choices in wanted for task in choices[0] for ref in task.data()}
    ensure(sorted(every), offline=offline, on_progress=say)  # all files of one source at once
    chosen: dict[str, Task] = {}
    notes = []
    for choices in wanted:
        reasons: list[str] = []
        for tasks in choices:
            missing = ensure([ref for task in tasks for ref in task.data()], offline=offline, on_progress=say)
            if not missing:
                break
            reasons += [f"{ref} is not available: {reason}" for ref, reason in missing.items()]
        else:
            if not listing:
                raise UsageError(f"suite {suite.name}: data {reasons[0]}")
            tasks = choices[0]
            notes += reasons
        if reasons and not missing:
            notes.append(
                f"{_names(choices[0])} is left out ({reasons[0]}); {_names(tasks)} is measured instead, under its own "
                "metric id"
            )
        chosen |= {task.id: task for task in tasks}
    return list(chosen.values()), notes


def _ensure_own(
    entries: Sequence[PlanEntry], suite: Suite, offline: bool, say: Say, listing: bool, *, texts: bool
) -> list[str]:
    """Fetch the data of the entries' own tasks and, with `texts`, what they read; notes as `_ensure`."""
    data = [ref for entry in entries for task in entry.own_tasks for ref in task.data()]
    read = [source.data for entry in entries for source in (entry.calibration, entry.training) if source is not None]
    notes = _ensure("data", data, suite, offline, say, listing)
    return notes + (_ensure("text", read, suite, offline, say, listing) if texts else [])


def _ensure(what: str, refs: Sequence[str], suite: Suite, offline: bool, say: Say, listing: bool) -> list[str]:
    """Fetch what is missing of `refs`; what is not available is an error, or where the plan is only listed a note."""
    missing = ensure(sorted(set(refs)), offline=offline, on_progress=say)
    notes = [f"{ref} is not available: {reason}" for ref, reason in missing.items()]
    if notes and not listing:
        raise UsageError(f"suite {suite.name}: {what} {notes[0]}")
    return notes


def _check(plan: Plan, suite: Suite) -> None:
    """Refuse open jobs that cannot be done because an engine, a BOS, a chat template or text is missing."""
    for weights, cell in ((job.artifact.weights, cell) for job in plan.open_jobs() for cell in job.cells):
        protocol = cell.task.partition("@")[2]
        why = kind_of_task(cell.kind).why_not_here(protocol) or why_not_for(protocol, weights)
        if why is not None:
            raise UsageError(f"suite {suite.name}: task {cell.task}: {why}")
    _check_lengths([job.artifact for job in plan.open_jobs() if job.artifact.key not in plan.finished], suite)


def _check_lengths(cells: Sequence[ArtifactCell], suite: Suite) -> None:
    """Refuse texts that are here and too short; without a tokenizer here, by their bytes alone."""
    for cell in cells:
        source = cell.calibration
        if not isinstance(source, TextSource) or not Pack.default().has(source.data):
            continue
        why = shortfall(source, cell.config, cell.weights)
        if why is not None:
            where = f"suite {suite.name}: methods: {cell.method} ({cell.preset}): calibration: {cell.calibration_name}"
            raise UsageError(f"{where}: {why}")


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(task.id for task in tasks)


def _check_filters(only: Mapping[str, str]) -> None:
    for name in only:
        if name not in FILTERS:
            raise unknown("filter", name, FILTERS, "--only")
    if "task" in only:
        tasks_named(only["task"], where="--only task")


def _fits(cell: ArtifactCell, only: Mapping[str, str]) -> bool:
    values = {
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "recovery": cell.recovery_name,
        "target": cell.target_name,
        "calibration": cell.calibration_name,
        "seed": str(cell.seed),
    }
    return all(values[name] == value for name, value in only.items() if name != "task")


def _asked(task: Task, only: Mapping[str, str]) -> bool:
    """Whether the filter names the task: by its id, with or without the limit, or by the name of a group it is in."""
    if "task" not in only:
        return True
    return bool({task.id, task.id.split("/limit")[0]} & {wanted.id for wanted in tasks_named(only["task"])})


def _device(wanted: str) -> tuple[str, str | None]:
    """The device to run on and the accelerator's name (None on a CPU), from the driver, as torch is not loaded."""
    accelerator = None if wanted == "cpu" else accelerator_name()
    if wanted == "cuda" and accelerator is None:
        raise UsageError("device: the suite asks for cuda, and this machine has no NVIDIA GPU")
    return ("cuda" if accelerator else "cpu"), accelerator
