"""Random weights in the shape of a model: for size, speed and memory where its weights are not available.

Such a checkpoint follows from its recipe alone, so its fingerprint is known before it is made. Nothing here imports
torch: a process of its own makes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalogue import CatalogueEntry, ModelRef, config_of, named
from bench.data.files import locked, read_json, replacing
from bench.errors import LeanboardError, UsageError
from bench.families import DEFAULT
from bench.paths import cache_dir, offline
from bench.process import run_module
from bench.registry import tasks_named
from bench.shape import Shape
from bench.suite import FirstOf, Suite
from bench.task import KINDS

VERSION = 1
SEED = 0
SHAPE = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
    "max_position_embeddings",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
}


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint of random weights is made: fields of its config.json, the dtype, and a seed that is fixed.

    Where `config` has no `model_type`, it is the default family's.
    """

    id: str
    config: Mapping[str, Any]
    dtype: str

    @property
    def fingerprint(self) -> str:
        content = [VERSION, SEED, self.dtype, self.config]
        return f"random-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies once it is made."""
        return cache_dir() / "models" / self.fingerprint[:23]

    def ref(self) -> ModelRef:
        """The checkpoint, made or not."""
        return ModelRef(self.id, self.folder, self.fingerprint, "none")

    def make(self, say: Callable[[str], None]) -> None:
        """Write the checkpoint unless it exists; it is written whole or not at all.

        Raises:
            LeanboardError: the config is not one of its family, or it cannot be written.
        """
        with locked(self.folder):
            if self.folder.is_dir():
                return
            say(f"{self.id}: drawing random weights (once)")
            order = json.dumps({"config": self.config, "dtype": self.dtype, "seed": SEED})
            with replacing(self.folder) as new:
                problem = run_module("bench.model.random", order, str(new))
                if problem is not None:
                    raise LeanboardError(f"{self.id}: the random weights cannot be made ({problem})")


def recipe_of(name: str, paths: Mapping[str, Path], dtype: str) -> Recipe:
    """The recipe for a model of the catalogue, or for the config.json of a folder or hub id (from `paths`, or `name`).

    Raises:
        UsageError: not a known model or folder, not to be had from the hub, or a config of another family.
        DataError: config.json is damaged, or lacks a width.
    """
    place = named(name, paths)
    config = dict(place.config) if isinstance(place, CatalogueEntry) else _shape_in(config_of(place, offline()))
    if isinstance(place, Path) and name not in paths:
        recipe = Recipe(f"{place.resolve().name}-random", config, dtype)
        return Recipe(f"{recipe.id}-{recipe.fingerprint[7:13]}", config, dtype)
    return Recipe(f"{name}-random", config, dtype)


def without_quality(suite: Suite) -> tuple[Suite, list[str]]:
    """`suite` with only the tasks that random weights can be measured on, and a note on the others.

    Of several calibration texts one is left: random tokens take its place.

    Raises:
        UsageError: no task is left, or one is not known.
    """
    left_out: dict[str, None] = {}

    def is_kept(entry: str | FirstOf) -> bool:
        name = entry if isinstance(entry, str) else entry.first_of[0]
        kept = not any(task.spec.needs_weights for task in tasks_named(name, where=f"suite {suite.name}: tasks"))
        left_out.update({} if kept else {name: None})
        return kept

    methods = [m.model_copy(update={"tasks": [t for t in m.tasks if is_kept(t)]}) for m in suite.methods]
    kept = [entry for entry in suite.tasks if is_kept(entry)]
    if not kept and not any(method.tasks for method in methods):
        raise UsageError(
            f"suite {suite.name}: tasks: none is left with random weights, on which only tasks of the kinds "
            f"{' and '.join(sorted(kind for kind, spec in KINDS.items() if not spec.needs_weights))} are measured"
        )
    note = f"random weights have no quality: {', '.join(left_out)} left out"
    changes = {"tasks": kept, "methods": methods, "calibrations": suite.calibrations[:1]}
    return suite.model_copy(update=changes), [note] if left_out else []


def _shape_in(file: Path) -> dict[str, Any]:
    config = read_json(file)
    family = Shape.of(config, file).family
    if config.get("model_type", DEFAULT) != family.model_type:
        raise UsageError(f"{file}: model_type: '{config['model_type']}' is not a stock model; random weights need one")
    own = {family.epsilon, *family.defaults, *family.biases.values()}
    fields = {name for name in config if name in SHAPE | own}
    named = {} if family.model_type == DEFAULT else {"model_type": family.model_type}
    return named | {name: config[name] for name in sorted(fields)}
