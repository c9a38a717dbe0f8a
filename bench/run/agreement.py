"""Check that a worker computes what the keys of its job say: a node may have another checkout, plug-in or data pack.

The planner computed the keys with its own code. A worker computes their ingredients again with its own code, as far as
it can, and compares; it also compares the sources of both. Where they differ, the cell ends as failed, with the field
in its record; another run tries it again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.blocks.recoveries import resolve_recovery
from bench.data.files import read_json
from bench.data.pack import Pack
from bench.errors import KeyMismatch
from bench.family import of_type
from bench.paths import METHODS, ROOT, TASKS
from bench.record.store import differences
from bench.registry import BUILT_IN, MethodEntry, Registry, tasks_named
from bench.run.cells import ArtifactCell, Job, MeasureCell, chat_ingredients, fingerprinted
from bench.yamlfile import validated

SHOWING = ("cli", "conformance", "report", "scaffold", "suites")
"""Folders of ours on which no number depends, so that they may change while a suite runs."""


def sources_of(entry: MethodEntry, weights: Path) -> dict[str, str]:
    """Versions of the code that makes a checkpoint of the model in `weights` by this method and measures it:
    Leanboard's, the table of the model's family (which may be a plug-in's), and the method's where it is a plug-in.
    """
    found, config = {"leanboard": leanboard_code()}, weights / "config.json"
    family = of_type(str(read_json(config).get("model_type"))) if config.is_file() else None
    if family is not None:
        found["family"] = hashlib.sha256(repr(family).encode()).hexdigest()[:12]
    if entry.origin != BUILT_IN:
        file = sys.modules[entry.cls.__module__].__file__
        files = entry.folder.rglob("*.py") if entry.folder is not None else [Path(file)] if file else []
        found["plug-in"] = _digest(files)
    return found


@cache
def leanboard_code() -> str:
    """Leanboard's version and 12 hex digits of its sources."""
    files = []
    for root in (ROOT / "bench", METHODS, TASKS):
        parts = ((file, file.relative_to(root).parts) for file in root.rglob("*") if file.suffix in (".py", ".yaml"))
        files += [file for file, (first, *_) in parts if first not in SHOWING]
    try:
        name = version("leanboard")
    except PackageNotFoundError:
        name = "0"
    return f"{name}+{_digest(files)}"


def check_checkpoint_agrees(job: Job, registry: Registry) -> None:
    """Refuse to make the checkpoint of `job` where the result would not be that of its key.

    Raises:
        KeyMismatch: the code, the method's version or settings, the recovery or a text differs here.
    """
    cell = job.artifact
    entry = registry.method(cell.method)
    _check_sources(job, entry)
    chosen = {name: value for name, value in cell.recovery.items() if name != "version"} if cell.recovery else None
    _check(
        cell,
        cell.label,
        {
            "method": entry.name,
            "version": entry.cls.version,
            "config": validated(entry.cls.Config, cell.config, f"method {cell.method}: config").model_dump(mode="json"),
            "recovery": resolve_recovery(chosen, f"{cell.label}: recovery"),
            "target": cell.target.model_dump(mode="json") if cell.target else None,
            "seed": cell.seed,
            "dtype": cell.dtype,
            "calibration": fingerprinted(cell.calibration),
            "training": fingerprinted(cell.training),
        },
    )


def check_task_agrees(job: Job, cell: MeasureCell, registry: Registry) -> None:
    """Refuse to measure `cell` of `job` where the number would not be that of its key.

    Raises:
        KeyMismatch: the code, the engine's version, the task's settings or its data differ here.
    """
    _check_sources(job, registry.method(job.artifact.method))
    [task] = tasks_named(cell.task)
    pack = Pack.default()
    _check(
        cell,
        f"{job.artifact.label} · {cell.task}",
        {
            "artifact": job.artifact.key,
            "data": {ref: pack.fingerprint(ref) for ref in task.data()},
            "engine": task.spec.engine,
            "dtype": job.artifact.dtype,
            "device": job.artifact.device,
            **task.settings(),
            **chat_ingredients(task, job.artifact.weights),
        },
    )


def _check_sources(job: Job, entry: MethodEntry) -> None:
    here = sources_of(entry, job.artifact.weights)
    for name, planned in job.sources.items():
        if here.get(name) != planned:
            raise KeyMismatch(
                f"{job.artifact.label}: field 'sources.{name}' is {planned} in the plan and {here.get(name)} in this "
                "worker; both need the same code"
            )


def _check(cell: ArtifactCell | MeasureCell, label: str, here: dict[str, Any]) -> None:
    found = differences(cell, cell.model_copy(update={"ingredients": cell.ingredients | here}))
    if found:
        field, planned, ours = found[0]
        raise KeyMismatch(f"{label}: field 'ingredients.{field}' is {planned} in the key and {ours} in this worker")


def _digest(files: Iterable[Path]) -> str:
    """12 hex digits over the names and contents of `files`, whatever their order."""
    content = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts):
        content.update(f"{path.parent.name}/{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:12]
