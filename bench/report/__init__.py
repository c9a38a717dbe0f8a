"""The report on the results: a pure function of the records under `results/runs`, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.files import write_whole
from bench.errors import LeanboardError, RecordError
from bench.record.store import Store

if TYPE_CHECKING:
    from bench.registry import MethodEntry
    from bench.report.board import Board
    from bench.task_group import TaskGroup

    Methods = Mapping[str, MethodEntry]


@dataclass(frozen=True)
class ReportResult:
    """The files of the report, the records that could not be read, and the board."""

    written: list[Path]
    problems: list[RecordError]
    board: Board


def report(results: Path, groups: Sequence[TaskGroup], methods: Methods | None = None) -> ReportResult:
    """Write `leaderboard`, `long`, `paired`, `sides`, `reproduction`, `tables/`, `plots/` and `site/` under `results`.

    Files that an earlier board had and this one has not are deleted. The site shows the cards of `methods`.

    Raises:
        LeanboardError: a file cannot be written or deleted.
    """
    board, problems, files = _regenerated(results, groups, methods or {})
    for path, content in files.items():
        write_whole(path, content)
    for path in _stale(results, files):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LeanboardError(f"{path}: cannot be removed: {error.strerror or error}") from error
    return ReportResult(list(files), problems, board)


def check(results: Path, groups: Sequence[TaskGroup], methods: Methods | None = None) -> list[Path]:
    """The files of the report that are not what `report` would write: changed, missing or left over."""
    _, _, files = _regenerated(results, groups, methods or {})
    changed = [path for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
    return sorted([*changed, *_stale(results, files)])


def _regenerated(
    results: Path, groups: Sequence[TaskGroup], methods: Methods
) -> tuple[Board, list[RecordError], dict[Path, bytes]]:
    from bench.report.build import build
    from bench.report.frame import current
    from bench.report.markdown import markdown
    from bench.report.paper import paper_tables
    from bench.report.plots import plots
    from bench.report.published import load_published
    from bench.report.site import site
    from bench.report.tables import board_csv, long_csv, paired_csv, reproduction_csv, sides_csv
    from bench.report.verdicts import reproduction

    records, problems = Store(results).read_all()
    same_for_all_seeds = frozenset(name for name, entry in methods.items() if entry.cls.traits.deterministic)
    board = build(records, groups, load_published(results), same_for_all_seeds)
    files = {
        results / "leaderboard.csv": board_csv(board).encode(),
        results / "leaderboard.md": markdown(board).encode(),
        results / "long.csv": long_csv(board).encode(),
        results / "paired.csv": paired_csv(board).encode(),
        results / "reproduction.csv": reproduction_csv(board).encode(),
        results / "reproduction.md": reproduction(board).encode(),
        results / "sides.csv": sides_csv(board).encode(),
    }
    files |= {results / "plots" / name: content for name, content in plots(board).items()}
    files |= {results / "tables" / name: content for name, content in paper_tables(board).items()}
    files |= {results / "site" / name: content for name, content in site(board, current(records)[0], methods).items()}
    return board, problems, files


def _stale(results: Path, files: dict[Path, bytes]) -> list[Path]:
    """Plots, pages and tables that an earlier board had and this one has not."""
    from bench.report.plots import KINDS

    kept = [path for kind in KINDS for path in (results / "plots").glob(f"*.{kind}.*")]
    kept += [path for folder in ("rows", "methods") for path in (results / "site" / folder).glob("*.html")]
    kept += (results / "tables").glob("*.board.*")
    return sorted(path for path in kept if path not in files)
