"""From a suite to cells: models and data made sure of, settings resolved, keys computed. No torch.

All that can go wrong cheaply goes wrong here, before any heavy work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.blocks.recoveries import resolve_recovery
from bench.catalogue import ModelRef, resolve
from bench.data.pack import Pack
from bench.data.sources import ensure
from bench.errors import UsageError, unknown
from bench.measure import ENGINE
from bench.method import MethodConfig, Target
from bench.record.provenance import accelerator_name, machine_fingerprint
from bench.record.store import Store
from bench.registry import MethodEntry, Registry, tasks_named
from bench.run.cells import ArtifactCell, Job, MeasureCell, measure_ingredients
from bench.run.executors import threads_each
from bench.suite import FirstOf, Suite, SuiteMethod, TextSource
from bench.task import Task

Say = Callable[[str], None]
FILTERS = ("model", "method", "preset", "recovery", "target", "seed", "task")


@dataclass
class Plan:
    """Every cell of a suite, those already finished included, and what the user should know beforehand."""

    suite: Suite
    jobs: list[Job]
    finished: set[str]
    notes: list[str] = field(default_factory=list)

    def open_jobs(self) -> list[Job]:
        """The jobs with something left to do, each with its open cells only."""
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
) -> Plan:
    """Resolve `suite` into jobs.

    Raises:
        UsageError: an unknown name, or a model, data file or setting that cannot be had.
    """
    methods = [(item, *_resolved(item, registry, suite)) for item in suite.methods]
    wanted = [_choices(entry, suite) for entry in suite.tasks]
    refs = [resolve(name, paths=model_paths, offline=offline, on_progress=say) for name in suite.models]
    tasks, notes = _choose_tasks(wanted, suite, offline, say)
    device, accelerator = _device(suite.device)
    machine = f"{machine_fingerprint(accelerator)}/{threads_each(1)} threads"
    fingerprints = _Fingerprints(Pack.default(), machine, device, suite.dtype)
    texts = _ensure_texts(suite, methods, offline, say)
    jobs = []
    for ref in refs:
        for item, entry, config, recovery in methods:
            for target in _targets(item, entry, suite):
                for seed in suite.seeds[:1] if entry.cls.traits.deterministic else suite.seeds:
                    artifact = _artifact(ref, item, entry, config, recovery, target, seed, suite, device, texts)
                    cells = [fingerprints.cell(artifact, task) for task in tasks]
                    job = Job(artifact=artifact, cells=cells, results=results, plugins=list(plugins),
                              command=list(command), accelerator=accelerator)
                    jobs += _filtered(job, only)
    if not jobs:
        raise UsageError(f"--only {' '.join(f'{k}={v}' for k, v in only.items())}: no cell of the suite fits")
    store = Store(results)
    plan = Plan(suite, jobs, set(), notes)
    plan.finished = {key for key in plan.all_keys() if store.finished(key)}
    return plan


@dataclass(frozen=True)
class _Fingerprints:
    """What enters the measure keys beside checkpoint and task."""

    pack: Pack
    machine: str
    device: str
    dtype: str

    def cell(self, artifact: ArtifactCell, task: Task) -> MeasureCell:
        data = {ref: self.pack.fingerprint(ref) for ref in task.spec.data()}
        machine = self.machine if task.spec.kind == "generation" else None
        ingredients = measure_ingredients(
            artifact.key, task, data, ENGINE[task.spec.kind], self.dtype, self.device, machine
        )
        return MeasureCell(task=task.id, kind=task.spec.kind, ingredients=ingredients)


def _resolved(
    item: SuiteMethod, registry: Registry, suite: Suite
) -> tuple[MethodEntry, MethodConfig, dict[str, Any] | None]:
    entry = registry.method(item.name, f"suite {suite.name}: methods")
    preset = entry.preset(item.preset)
    wanted = preset.recovery if item.recovery == "preset" else None if item.recovery == "none" else item.recovery
    where = f"suite {suite.name}: methods: {item.name}: recovery"
    return entry, entry.config(preset, item.config), resolve_recovery(wanted, where)


def _choices(entry: str | FirstOf, suite: Suite) -> list[list[Task]]:
    where = f"suite {suite.name}: tasks"
    names = entry.first_of if isinstance(entry, FirstOf) else [entry]
    return [tasks_named(name, where=where) for name in names]


def _choose_tasks(
    wanted: list[list[list[Task]]], suite: Suite, offline: bool, say: Say
) -> tuple[list[Task], list[str]]:
    """The tasks to run: of several choices the first whose data can be had; a note where that is not the first."""
    refs = sorted({ref for choices in wanted for tasks in choices for task in tasks for ref in task.spec.data()})
    missing = ensure(refs, offline=offline, on_progress=say)
    chosen: list[Task] = []
    notes = []
    for choices in wanted:
        lacks = [[ref for task in tasks for ref in task.spec.data() if ref in missing] for tasks in choices]
        good = next((i for i, lack in enumerate(lacks) if not lack), None)
        if good is None:
            raise UsageError(f"suite {suite.name}: data {lacks[0][0]} cannot be had: {missing[lacks[0][0]]}")
        if good:
            names = ", ".join(task.id for task in choices[good])
            notes.append(
                f"{', '.join(task.id for task in choices[0])} is left out ({missing[lacks[0][0]]}); "
                f"{names} is measured instead, under its own metric id"
            )
        chosen += [task for task in choices[good] if task not in chosen]
    return chosen, notes


def _ensure_texts(
    suite: Suite, methods: list[tuple[SuiteMethod, MethodEntry, MethodConfig, dict[str, Any] | None]],
    offline: bool, say: Say,
) -> dict[str, str]:
    """Fingerprints of the calibration and instruction files that some method of the suite reads."""
    needed = {}
    if any("calibration" in entry.cls.traits.needs for _, entry, _, _ in methods):
        needed["calibration"] = suite.calibration.data
    if any(recovery or "training" in entry.cls.traits.needs for _, entry, _, recovery in methods):
        if suite.instructions is None:
            raise UsageError(f"suite {suite.name}: instructions: missing, but a method of the suite trains on them")
        needed["instructions"] = suite.instructions.data
    missing = ensure(sorted(set(needed.values())), offline=offline, on_progress=say)
    for what, ref in needed.items():
        if ref in missing:
            raise UsageError(f"suite {suite.name}: {what}: {ref} cannot be had: {missing[ref]}")
    pack = Pack.default()
    return {what: pack.fingerprint(ref) for what, ref in needed.items()}


def _targets(item: SuiteMethod, entry: MethodEntry, suite: Suite) -> list[Target | None]:
    """The size targets of a method: none where it removes nothing, or where the suite leaves it to the config."""
    if not entry.cls.traits.changes or entry.cls.traits.track == "peft":
        return [None]
    return list(suite.targets if item.targets is None else item.targets) or [None]


def _artifact(
    ref: ModelRef, item: SuiteMethod, entry: MethodEntry, config: MethodConfig, recovery: dict[str, Any] | None,
    target: Target | None, seed: int, suite: Suite, device: str, texts: Mapping[str, str],
) -> ArtifactCell:
    needs = entry.cls.traits.needs
    calibration = suite.calibration if "calibration" in needs else None
    instructions = suite.instructions if recovery or "training" in needs else None
    resolved = config.model_dump(mode="json")
    ingredients = artifact_ingredients(
        ref, entry, resolved, recovery, target, seed, suite.dtype,
        calibration and _text(calibration, texts["calibration"]),
        instructions and _text(instructions, texts["instructions"]),
    )
    return ArtifactCell(
        model=ref.id, weights=ref.path, method=entry.name, preset=item.preset, config=resolved, recovery=recovery,
        target=target, seed=seed, dtype=suite.dtype, device=device, calibration=calibration,
        instructions=instructions, ingredients=ingredients,
    )


def artifact_ingredients(
    ref: ModelRef, entry: MethodEntry, config: dict[str, Any], recovery: dict[str, Any] | None,
    target: Target | None, seed: int, dtype: str, calibration: Any, instructions: Any,
) -> dict[str, Any]:
    """What a checkpoint depends on."""
    return {
        "weights": ref.fingerprint, "tokenizer": ref.tokenizer_fingerprint, "method": entry.name,
        "version": entry.cls.version, "config": config, "recovery": recovery,
        "target": target.model_dump(mode="json") if target else None,
        "seed": seed, "dtype": dtype, "calibration": calibration, "instructions": instructions,
    }


def _text(source: TextSource, fingerprint: str) -> dict[str, str]:
    return {**source.model_dump(mode="json"), "fingerprint": fingerprint}


def _filtered(job: Job, only: Mapping[str, str]) -> list[Job]:
    """`job` with the cells that `only` asks for; nothing where it asks for other jobs or has no such cell."""
    for name in only:
        if name not in FILTERS:
            raise unknown("filter", name, FILTERS, "--only")
    cell = job.artifact
    values = {
        "model": cell.model, "method": cell.method, "preset": cell.preset, "recovery": cell.recovery_name,
        "target": str(cell.target) if cell.target else "none", "seed": str(cell.seed),
    }
    if any(values[name] != value for name, value in only.items() if name != "task"):
        return []
    if "task" not in only:
        return [job]
    asked = {task.id for task in tasks_named(only["task"], where="--only task")} | {only["task"]}
    cells = [c for c in job.cells if c.task in asked or c.task.split("/limit")[0] in asked]
    return [job.model_copy(update={"cells": cells})] if cells else []


def _device(wanted: str) -> tuple[str, str | None]:
    """The device to run on and the accelerator's name (None on a CPU); asked of the driver, as torch is not loaded."""
    accelerator = None if wanted == "cpu" else accelerator_name()
    if wanted == "cuda" and accelerator is None:
        raise UsageError("device: the suite asks for cuda, and this machine shows no NVIDIA GPU")
    return ("cuda" if accelerator else "cpu"), accelerator

