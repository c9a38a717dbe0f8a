"""lm-eval's task files, read as text: lm-eval is not imported, and none of its code is looked up or run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from bench.errors import unknown

NAME = re.compile(r"^[a-z0-9_]+$")


@dataclass(frozen=True)
class Examples:
    """Where lm-eval takes the examples of a task from, and how.

    `role` is the setting that names their `split`; both are empty where its file lists the examples themselves.
    `are_fixed`: the first ones, in order. `is_evaluated`: they are of the very split that the task is measured on.
    `never`: lm-eval asks the task without examples, whatever it is told.
    """

    role: str
    split: str
    are_fixed: bool
    is_evaluated: bool
    never: bool


@lru_cache
def stock_yaml(name: str) -> Path:
    """The file that defines lm-eval's task `name`. Raises UsageError where none does."""
    file = find(name)
    if file is None:
        raise unknown("task of lm-eval", name, near(name))
    return file


def find(name: str) -> Path | None:
    """The file that defines lm-eval's task `name`; None where none does.

    Found by text, first in files whose path has the name, then in all 14,000.
    """
    if not NAME.match(name):
        return None
    says = re.compile(rf"^\"?task\"?:\s*['\"]?{re.escape(name)}['\"]?\s*$".encode(), re.MULTILINE)
    likely = (file for file in _files() if name in str(file))
    return next((file for file in likely if says.search(file.read_bytes())), None) or _names().get(name)


def near(name: str) -> list[str]:
    """Names of lm-eval's tasks like `name`."""
    return get_close_matches(name, [known for known in _names() if known.startswith(name[:2])], n=2)


def resolved(file: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of a task, with those that it includes and the code next to them, and its settings.

    A function among the settings is the text 'function <its name>'.
    """
    content = _Loader(file.read_text(encoding="utf-8")).get_single_data()
    includes = content.pop("include", [])
    files: list[Path] = []
    config: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        more, settings = resolved((file.parent / name).resolve())
        files += more
        config |= settings
    code = sorted({file.parent / f"{text.split('.')[0]}.py" for text in _functions(content)})
    return [*files, file, *(path for path in code if path.is_file())], config | content


def examples_of(config: Mapping[str, Any]) -> Examples:
    """lm-eval's own rule: the split for examples, else those listed, else training, validation or test split."""
    own = config.get("fewshot_config") or {}
    roles = {name: config.get(name) for name in ("training_split", "validation_split", "test_split")}
    role, split = "", ""
    if chosen := own.get("split") or config.get("fewshot_split"):
        role, split = "fewshot_split", chosen
    elif not own.get("samples"):
        role, split = next(((role, split) for role, split in roles.items() if split), ("", ""))
    return Examples(
        role,
        split,
        are_fixed=own.get("sampler") == "first_n",
        is_evaluated=bool(split) and split == evaluated_split(config),
        never=config.get("num_fewshot") == 0,
    )


def evaluated_split(config: Mapping[str, Any]) -> str | None:
    """The split that lm-eval measures a task on."""
    return config.get("test_split") or config.get("validation_split")


def _root() -> Path | None:
    package = find_spec("lm_eval")
    folders = package.submodule_search_locations if package is not None else None
    return Path(folders[0], "tasks") if folders else None


@lru_cache(maxsize=1)
def _files() -> list[Path]:
    root = _root()
    return sorted(root.rglob("*.yaml")) if root is not None else []


@lru_cache(maxsize=1)
def _names() -> dict[str, Path]:
    says = re.compile(rb"^\"?task\"?:\s*['\"]?([A-Za-z0-9_.-]+)['\"]?\s*$", re.MULTILINE)
    found = ((says.search(file.read_bytes()), file) for file in _files())
    return {match[1].decode(): file for match, file in found if match is not None}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which lm-eval's `!function` is a text: nothing is looked up or run."""


_Loader.add_constructor("!function", lambda loader, node: f"function {node.value}")


def _functions(content: Any) -> Iterator[str]:
    if isinstance(content, str) and content.startswith("function "):
        yield content.removeprefix("function ")
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _functions(value)
