"""All that is shown of the results: a pure function of the records under `results/runs`, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import LeanboardError, RecordError
from bench.record.store import Store, write_atomic

if TYPE_CHECKING:
    from bench.report.board import Board
    from bench.task import TaskGroup


@dataclass(frozen=True)
class ReportResult:
    """The files of the report, the records that could not be read, and the board."""

    written: list[Path]
    problems: list[RecordError]
    board: Board


def report(results: Path, groups: Sequence[TaskGroup]) -> ReportResult:
    """Write the tables (`leaderboard`, `long`, `paired`, `reproduction`) and `plots/`; plots of old boards go.

    Raises:
        LeanboardError: the file system refuses.
    """
    board, problems, files = _regenerated(results, groups)
    for path, content in files.items():
        write_atomic(path, content)
    for path in _stale(results, files):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LeanboardError(f"{path}: cannot be removed: {error.strerror or error}") from error
    return ReportResult(list(files), problems, board)


def check(results: Path, groups: Sequence[TaskGroup]) -> list[Path]:
    """The files of the report that are not what `report` would write: changed, missing or left over."""
    _, _, files = _regenerated(results, groups)
    changed = [path for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
    return sorted([*changed, *_stale(results, files)])


def _regenerated(results: Path, groups: Sequence[TaskGroup]) -> tuple[Board, list[RecordError], dict[Path, bytes]]:
    from bench.report.build import build
    from bench.report.markdown import markdown
    from bench.report.plots import plots
    from bench.report.published import load_published
    from bench.report.tables import board_csv, long_csv, paired_csv, reproduction_csv
    from bench.report.verdicts import reproduction

    records, problems = Store(results).read_all()
    board = build(records, groups, load_published(results))
    files = {
        results / "leaderboard.csv": board_csv(board).encode(),
        results / "leaderboard.md": markdown(board).encode(),
        results / "long.csv": long_csv(board).encode(),
        results / "paired.csv": paired_csv(board).encode(),
        results / "reproduction.csv": reproduction_csv(board).encode(),
        results / "reproduction.md": reproduction(board).encode(),
    }
    return board, problems, files | {results / "plots" / name: content for name, content in plots(board).items()}


def _stale(results: Path, files: dict[Path, bytes]) -> list[Path]:
    """Plots that an earlier board had and this one has not."""
    return sorted(path for path in (results / "plots").glob("*.quality-vs-*.*") if path not in files)
