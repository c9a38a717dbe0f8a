"""The models of a plan: made sure of, of random weights, or only to be listed. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.catalogue import CatalogueEntry, HubModel, ModelRef, config_of, is_here, named, resolve
from bench.catalogue.hub import snapshot
from bench.data.files import read_json
from bench.paths import cache_dir
from bench.random_weights import Recipe, recipe_of
from bench.run.cells import NOT_HERE, Job
from bench.shape import Shape
from bench.suite import RandomTokens


@dataclass
class Models:
    """Where the models lie; the config of those that are not there yet, and notes on what is to be fetched."""

    refs: list[ModelRef]
    recipes: list[Recipe] = field(default_factory=list)
    configs: dict[Path, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def tokens(self, ref: ModelRef) -> RandomTokens | None:
        """What stands in for text with random weights."""
        configs = [recipe.config for recipe in self.recipes if recipe.id == ref.id]
        return RandomTokens(random_tokens=configs[0]["vocab_size"]) if configs else None


def random_models(names: Sequence[str], paths: Mapping[str, Path], dtype: str) -> Models:
    """Models of the same shapes with random weights."""
    recipes = [recipe_of(name, paths, dtype) for name in names]
    return Models([recipe.ref() for recipe in recipes], recipes, {recipe.folder: recipe.config for recipe in recipes})


def real_models(
    names: Sequence[str],
    paths: Mapping[str, Path],
    offline: bool,
    trust_remote_code: bool,
    say: Callable[[str], None],
    listing: bool,
) -> Models:
    """The models, fetched where they are not here; with `listing` those of the hub are not, but get a note."""
    found = Models([])
    for name in names:
        config = _config_of_absent(name, paths, offline) if listing else None
        if config is not None:
            place = cache_dir() / "models" / name
            found.refs.append(ModelRef(name, place, NOT_HERE, NOT_HERE))
            found.configs[place] = config
            size = 2 * Shape.of(config, name).params() / 1e9
            found.notes.append(
                f"{name}: weights are not here (to be fetched: about {size:.1f} GB); cells have no key before, and "
                "what was finished is not known"
            )
        else:
            found.refs.append(
                resolve(name, paths=paths, offline=offline, trust_remote_code=trust_remote_code, on_progress=say)
            )
    return found


def keyless(jobs: Sequence[Job]) -> set[str]:
    """Keys that mean nothing yet: of the cells whose weights, texts or data are not here."""
    found = set()
    for job in jobs:
        parts = job.artifact.ingredients
        marks = [parts["weights"], *((parts[name] or {}).get("fingerprint") for name in ("calibration", "training"))]
        if NOT_HERE in marks:
            found |= {job.artifact.key, *(cell.key for cell in job.cells)}
        found |= {cell.key for cell in job.cells if NOT_HERE in cell.ingredients["data"].values()}
    return found


def _config_of_absent(name: str, paths: Mapping[str, Path], offline: bool) -> Mapping[str, Any] | None:
    """The config of a model whose weights would have to come from the hub, or cannot come; None for others.

    Raises:
        UsageError: not a known model or folder, or the config of a hub id is not to be had.
    """
    place = named(name, paths)
    if isinstance(place, CatalogueEntry):
        absent = (offline or isinstance(place.source, HubModel)) and not is_here(place)
        return place.config if absent else None
    if isinstance(place, Path) or snapshot(place) is not None:
        return None
    return read_json(config_of(place, offline))
