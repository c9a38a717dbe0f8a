"""The units of work: one checkpoint to make (`ArtifactCell`), one task to measure on it (`MeasureCell`).

Both are plain JSON, so that a cell can be handed to another process or machine as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.catalogue import ModelRef
from bench.data.pack import Pack
from bench.method import Target
from bench.protocol import chat_template, flags_of
from bench.record.keys import artifact_key, measure_key
from bench.record.rows import text_name
from bench.registry import MethodEntry
from bench.suite import RandomTokens, TextSource
from bench.task import Task
from bench.task_files import shared_tasks

NOT_HERE = "not here"
"""The fingerprint of weights and texts that a plan lists before they were fetched; a cell with it has no key yet."""


class BaseCell(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactCell(BaseCell):
    """Everything that makes a checkpoint, names of files on this machine included.

    Only `ingredients`, the part that changes the result, enters the key.
    """

    model: str
    weights: Path
    method: str
    preset: str
    config: dict[str, Any]
    recovery: dict[str, Any] | None
    target: Target | None
    seed: int
    dtype: str
    device: str
    calibration: TextSource | RandomTokens | None
    names_text: bool = False
    """Whether the suite has several calibration texts, so that names must say which."""
    training: TextSource | RandomTokens | None
    ingredients: dict[str, Any]

    @property
    def key(self) -> str:
        return artifact_key(self.ingredients)

    @property
    def recovery_name(self) -> str:
        return str(self.recovery["name"]) if self.recovery else "none"

    @property
    def target_name(self) -> str:
        return str(self.target) if self.target else "none"

    @property
    def calibration_name(self) -> str:
        return text_name(self.calibration.model_dump(mode="json")) if self.calibration else "none"

    @property
    def label(self) -> str:
        """The cell's name in progress and error messages."""
        parts = [self.model, self.method, self.preset]
        parts += [self.recovery_name] * (self.recovery is not None)
        parts += [self.target_name] * (self.target is not None)
        parts += [self.calibration_name] * (self.names_text and self.calibration is not None)
        return " · ".join([*parts, f"seed {self.seed}"])


class MeasureCell(BaseCell):
    """One task on one checkpoint."""

    task: str
    kind: str
    ingredients: dict[str, Any]

    @property
    def key(self) -> str:
        return measure_key(self.ingredients)


class Job(BaseCell):
    """What one worker does: make (or find) a checkpoint, then measure the tasks that are still open.

    `sources` are the versions of the code that the keys were computed with (`bench.run.agreement`). In a rehearsal no
    speed means anything, so generation has no process of its own.
    """

    artifact: ArtifactCell
    cells: list[MeasureCell]
    sources: dict[str, str]
    results: Path
    plugins: list[Path] = []
    task_folders: list[Path] = Field(default_factory=shared_tasks)
    command: list[str]
    accelerator: str | None = None
    remote_code: str | None = None
    is_rehearsal: bool = False
    revision: str | None = None
    """The commit of the model, where it is of the hub."""


def artifact_ingredients(
    ref: ModelRef,
    entry: MethodEntry,
    config: dict[str, Any],
    recovery: dict[str, Any] | None,
    target: Target | None,
    seed: int,
    dtype: str,
    calibration: Any,
    training: Any,
) -> dict[str, Any]:
    """What a checkpoint depends on; `calibration` and `training` identify the texts that were read."""
    return {
        "weights": ref.fingerprint,
        "tokenizer": ref.tokenizer_fingerprint,
        "method": entry.name,
        "version": entry.cls.version,
        "config": config,
        "recovery": recovery,
        "target": target.model_dump(mode="json") if target else None,
        "seed": seed,
        "dtype": dtype,
        "calibration": calibration,
        "training": training,
    }


def measure_ingredients(
    artifact_key: str, task: Task, data: dict[str, str], engine: str, dtype: str, device: str, machine: str | None
) -> dict[str, Any]:
    """What a measurement depends on.

    `data` maps each file of the pack to its fingerprint; `machine` is given only for speed.
    """
    parts: dict[str, Any] = {
        "artifact": artifact_key,
        "data": data,
        "engine": engine,
        "dtype": dtype,
        "device": device,
        **task.settings(),
    }
    return parts | ({"machine": machine} if machine else {})


def chat_ingredients(task: Task, weights: Path) -> dict[str, Any]:
    """The chat template of the model in `weights`, where prompts are made with it: its hash as an ingredient.

    It may lie in a file of its own, which is none of those that the tokenizer's fingerprint covers.
    """
    if "chat" not in flags_of(task.protocol):
        return {}
    content = json.dumps(chat_template(weights)).encode()
    return {"chat_template": hashlib.sha256(content).hexdigest()[:12]}


def fingerprinted(source: TextSource | RandomTokens | None, *, may_lack: bool = False) -> dict[str, Any] | None:
    """A text as an ingredient: its source, and the file's fingerprint there (`NOT_HERE` where it `may_lack` it)."""
    if source is None:
        return None
    if isinstance(source, RandomTokens):
        return source.model_dump(mode="json")
    pack = Pack.default()
    lacks = may_lack and not pack.has(source.data)
    return {**source.model_dump(mode="json"), "fingerprint": NOT_HERE if lacks else pack.fingerprint(source.data)}
