"""Find a row and its records by the row's name, by the start of a key or by a record's file."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from bench.errors import UsageError
from bench.record.rows import RowName, find, text_name
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.record.store import Store
from bench.record.text import AnyRecord
from bench.report.frame import Run, current


class Rows:
    """The rows of a results folder that a board of it would show."""

    def __init__(self, results: Path) -> None:
        self.store = Store(results)

    @cached_property
    def _all(self) -> list[AnyRecord]:
        return self.store.read_all()[0]

    @property
    def records(self) -> list[AnyRecord]:
        """Raises UsageError where there is none."""
        if not self._all:
            raise UsageError(f"{self.store.results}: there are no records under {self.store.runs}")
        return self._all

    @cached_property
    def runs(self) -> dict[RowName, dict[int, Run]]:
        """The records that count, by row and seed."""
        return current(sorted(self.records, key=lambda record: record.key))[0]

    @cached_property
    def _texts(self) -> dict[RowName, str]:
        """The calibration text of each row, named by it or not."""
        made = ((row, run.artifact) for row, seeds in self.runs.items() for run in seeds.values())
        return {row: text_name(one.ingredients.get("calibration")) for row, one in made if one is not None}

    def row(self, text: str) -> tuple[RowName, dict[int, Run]]:
        """The row that `text` names and its seeds: all of them, or the one in `text`.

        Raises:
            UsageError: no row, several, or a seed that it does not have.
        """
        record = self._kept(text)
        if record is not None and RowName.of(record) in self.runs:
            return RowName.of(record), self.runs[RowName.of(record)]
        row, seed = find(text, list(self.runs), self._texts)
        seeds = self.runs[row]
        if seed is not None and seed not in seeds:
            raise UsageError(f"'{text}': {row} has no seed {seed}; it has {', '.join(map(str, sorted(seeds)))}")
        return row, seeds if seed is None else {seed: seeds[seed]}

    def record(self, text: str) -> AnyRecord:
        """The record of a key or file; for a row the record of its checkpoint.

        Raises:
            UsageError: as `row`; or the row has several seeds, or no record of its checkpoint.
            RecordError: the record is damaged.
        """
        record = self._kept(text)
        if record is not None:
            return record
        row, seeds = self.row(text)
        if len(seeds) > 1:
            raise UsageError(f"'{text}': {row} has the seeds {', '.join(map(str, sorted(seeds)))}; add 'seed N'")
        [run] = seeds.values()
        if run.artifact is None:
            raise UsageError(f"'{text}': the record of the checkpoint of {row} is missing")
        return run.artifact

    def checkpoint(self, text: str) -> ArtifactRecord:
        """The record of a checkpoint; `text` may also name a measurement of it. Raises as `record`."""
        record = self.record(text)
        made = self.store.load(record.artifact) if isinstance(record, MeasureRecord) else record
        if not isinstance(made, ArtifactRecord):
            raise UsageError(f"'{text}': the record of its checkpoint is not under {self.store.runs}")
        return made

    def _kept(self, text: str) -> AnyRecord | None:
        """The record of a file or of the start of a key; None where `text` is neither."""
        is_file = Path(text).is_file() or (Path(text) / "artifact.json").is_file()
        is_key = re.fullmatch(r"[0-9a-f]{4,16}", text) is not None and self.store.has(text)
        if not is_file and not is_key:
            return None
        found = self.store.find(text)
        told_apart = next((record for record in self._all if record.key == found.key), found)
        return found.model_copy(update={"calibration": told_apart.calibration})
