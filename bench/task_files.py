"""Where task files are: those built in, those of `--tasks` or `LEANBOARD_TASKS`, those of installed packages.

A package names the folder of its tasks by an entry point in the group `leanboard.tasks`, whose value is a package with
the YAML files in it. None of its code is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from bench.errors import UsageError
from bench.paths import TASKS

VARIABLE = "LEANBOARD_TASKS"


def share_tasks(folders: Sequence[Path]) -> None:
    """Let this process and all that it starts find the tasks of `folders` too."""
    named = map(str, (*(folder.resolve() for folder in folders), *shared_tasks()))
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(named))


def shared_tasks() -> list[Path]:
    """The folders that `--tasks` or the variable named."""
    return [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def task_files() -> Iterator[Path]:
    """Every task file, those built in first.

    Raises:
        UsageError: a folder has no task file, or a package of tasks cannot be found.
    """
    yield from sorted(TASKS.glob("*.yaml"))
    for folder in shared_tasks():
        yield from _in(folder, "--tasks")
    for point in entry_points(group="leanboard.tasks"):
        yield from _in(_folder_of(point), f"package {point.dist.name if point.dist else point.value}")


def _in(place: Path, whose: str) -> list[Path]:
    files = [place] if place.suffix == ".yaml" and place.is_file() else sorted(place.glob("*.yaml"))
    if not files:
        raise UsageError(f"{whose}: {place} is not a task file (.yaml) or a folder of such files")
    return files


def _folder_of(point: EntryPoint) -> Path:
    try:
        spec = find_spec(point.value)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"entry point leanboard.tasks: {point.name}: '{point.value}' is no installed package")
    return Path(next(iter(spec.submodule_search_locations)))
