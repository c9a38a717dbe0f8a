"""lm-eval's own tasks by their names, without a file of ours. Its files are read as text; lm-eval is not imported.

A task can be measured where its data is a split of the model hub and its answers are scored, not generated. The split
comes into the data pack as any other text, so that a run works offline once it is there, and its content is part of
every key. lm-eval's version of the task and a hash of the files that define it are part of the key too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from bench.errors import UsageError, unknown
from bench.record.kinds import kind_of
from bench.task import AccuracyTask
from bench.yamlfile import validated

OUTPUT_TYPES = ("multiple_choice", "loglikelihood")
NAME = re.compile(r"^[a-z0-9_]+$")
LOADERS = ("json", "csv", "parquet", "text", "arrow", "webdataset")
"""Dataset paths that are no repository but a form of files."""


class StockTask(AccuracyTask):
    """A task of lm-eval by its name, without a file of ours."""

    lm_eval_version: str = Field(description="lm-eval's version of the task")
    definition: str = Field(description="hash of the files that define it in lm-eval")


@lru_cache
def stock_task(name: str) -> StockTask | None:
    """lm-eval's task `name` as a task of ours; None where lm-eval has none of that name.

    Raises:
        UsageError: it cannot be measured here, with the reason.
    """
    from bench.data.sources import register

    file = _file_of(name) if NAME.match(name) else None
    if file is None:
        return None
    files, config = _resolved(file)
    ref, split = _data(name, config)
    metrics = _metrics(name, config)
    register(ref, config["dataset_path"], config.get("dataset_name"), split)
    return validated(
        StockTask,
        {
            "name": name,
            "kind": "accuracy",
            "description": f"lm-eval's own task {name}.",
            "lm_eval": name,
            "lm_eval_version": str((config.get("metadata") or {}).get("version", "not stated")),
            "definition": hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12],
            "splits": {"test" if config.get("test_split") else "validation": ref},
            "metrics": metrics,
            "headline": metrics[0],
        },
        file,
    )


@lru_cache
def stock_yaml(name: str) -> Path:
    """The file that defines lm-eval's task `name`. Raises UsageError where none does."""
    file = _file_of(name)
    if file is None:
        raise unknown("task of lm-eval", name, near(name))
    return file


def near(name: str) -> list[str]:
    """Names of lm-eval's tasks like `name`."""
    return get_close_matches(name, [known for known in _names() if known.startswith(name[:2])], n=2)


def _root() -> Path | None:
    package = find_spec("lm_eval")
    folders = package.submodule_search_locations if package is not None else None
    return Path(folders[0], "tasks") if folders else None


@lru_cache(maxsize=1)
def _files() -> list[Path]:
    root = _root()
    return sorted(root.rglob("*.yaml")) if root is not None else []


def _file_of(name: str) -> Path | None:
    """Found by text, first in files whose path has the name, then in all 14,000."""
    says = re.compile(rf"^\"?task\"?:\s*['\"]?{re.escape(name)}['\"]?\s*$".encode(), re.MULTILINE)
    likely = (file for file in _files() if name in str(file))
    return next((file for file in likely if says.search(file.read_bytes())), None) or _names().get(name)


@lru_cache(maxsize=1)
def _names() -> dict[str, Path]:
    says = re.compile(rb"^\"?task\"?:\s*['\"]?([A-Za-z0-9_.-]+)['\"]?\s*$", re.MULTILINE)
    found = ((says.search(file.read_bytes()), file) for file in _files())
    return {match[1].decode(): file for match, file in found if match is not None}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which lm-eval's `!function` is a text: nothing is looked up or run."""


_Loader.add_constructor("!function", lambda loader, node: f"function {node.value}")


def _resolved(file: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of a task, with those that it includes and the code next to them, and its settings."""
    content = _Loader(file.read_text(encoding="utf-8")).get_single_data()
    includes = content.pop("include", [])
    files: list[Path] = []
    config: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        more, settings = _resolved((file.parent / name).resolve())
        files += more
        config |= settings
    code = sorted({file.parent / f"{text.split('.')[0]}.py" for text in _functions(content)})
    return [*files, file, *(path for path in code if path.is_file())], config | content


def _functions(content: Any) -> Iterator[str]:
    if isinstance(content, str) and content.startswith("function "):
        yield content.removeprefix("function ")
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _functions(value)


def _data(name: str, config: dict[str, Any]) -> tuple[str, str]:
    """The split that the task is measured on, after a ref for it. Raises UsageError where it is none of the hub."""
    kind, path = config.get("output_type", "generate_until"), config.get("dataset_path")
    if kind not in OUTPUT_TYPES:
        measured = " and ".join(OUTPUT_TYPES)
        raise UsageError(f"task {name}: lm-eval's output type '{kind}' is not measured; {measured} are")
    if not isinstance(path, str) or path in LOADERS or config.get("dataset_kwargs") or "custom_dataset" in config:
        raise UsageError(f"task {name}: lm-eval does not read its data from a split of the model hub")
    split = config.get("test_split") or config.get("validation_split")
    if split is None:
        raise UsageError(f"task {name}: lm-eval names no test or validation split for it")
    where = " ".join(filter(None, (path, config.get("dataset_name"))))
    folder, file = (re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") for text in (where, split))
    return f"{folder}_{hashlib.sha256(f'{where} {split}'.encode()).hexdigest()[:6]}/{file}", split


def _metrics(name: str, config: dict[str, Any]) -> list[str]:
    """Its metrics that are shares of right items. Raises UsageError where there is none."""
    listed = [entry["metric"] for entry in config.get("metric_list") or [{"metric": "acc"}]]
    shares = [text for text in listed if isinstance(text, str) and kind_of(f"{name}.{text}").is_share]
    if not shares:
        raise UsageError(f"task {name}: none of lm-eval's metrics for it ({', '.join(map(str, listed))}) is measured")
    return shares
