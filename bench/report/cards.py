"""Report cards: what the records alone show of each method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.record.kind import SIDES
from bench.record.kinds import SPEEDUP, name_of
from bench.record.rows import RowName
from bench.report.board import Board, ReportCard, Row, Tick
from bench.report.frame import Run

POINTS = 5
SEEDS = 3


def cards_of(
    board: Board, runs: Mapping[RowName, Mapping[int, Run]], deterministic: Collection[str]
) -> dict[str, ReportCard]:
    """The card of every method on the board except the dense model."""
    methods = sorted({row.identity.method for row in board.rows} - {"dense"})
    return {method: _card(method, board, runs, method in deterministic) for method in methods}


def _card(method: str, board: Board, runs: Mapping[RowName, Mapping[int, Run]], is_deterministic: bool) -> ReportCard:
    rows = [row for row in board.rows if row.identity.method == method and row.has_checkpoint]
    mine = {row.identity: runs[row.identity] for row in rows}
    return ReportCard(
        method,
        (
            _points(rows),
            _seeds(mine, is_deterministic),
            _beats_random(method, board),
            _ratio_and_speed(rows),
            _reloaded(mine),
            _reproduced(method, board),
        ),
    )


def _points(rows: Sequence[Row]) -> Tick:
    """An operating point is a target and a recovery on one model; another preset is the same point."""
    points = {(row.identity.model, row.identity.target, row.identity.recovery) for row in rows}
    return Tick(f"at least {POINTS} operating points", len(points) >= POINTS, f"{len(points)}")


def _seeds(runs: Mapping[RowName, Mapping[int, Run]], is_deterministic: bool) -> Tick:
    """Enough seeds in every row, unless seeds change nothing: by the traits, or because several gave the same."""
    title = f"at least {SEEDS} seeds, unless seeds change nothing"
    if not runs:
        return Tick(title, None, "no checkpoint")
    if is_deterministic:
        return Tick(title, True, "deterministic")
    counts = [len(seeds) for seeds in runs.values()]
    alike = [_same_for_all(seeds) for seeds in runs.values() if len(seeds) > 1]
    if alike and all(alike):
        return Tick(title, True, "several seeds gave the same")
    least, most = min(counts), max(counts)
    return Tick(title, least >= SEEDS, f"{least}" if least == most else f"{least} to {most}")


def _same_for_all(seeds: Mapping[int, Run]) -> bool:
    """Whether all seeds measured the same, item by item and window by window."""
    found = {
        tuple(
            (task, measure.evidence.model_dump_json(include={"items", "windows", "sums"}))
            for task, measure in sorted(run.measures.items())
            if measure.evidence.items or measure.evidence.windows or measure.evidence.sums
        )
        for run in seeds.values()
    }
    return len(found) == 1 and found != {()}


def _beats_random(method: str, board: Board) -> Tick:
    """Compares pair by pair at the same size, by the headline metric of the model; also says how on other sides.

    Only what can rank counts (`Board.telling`).
    """
    title = "random beaten at equal size"
    if method == "random":
        return Tick(title, None, "is random")
    side_of = {(model, c.id): side for model in board.models() for side, c in board.telling(model).items()}
    mine = [
        pair
        for pair in board.pairs
        if pair.row.method == method and pair.control == "random" and (pair.row.model, pair.metric) in side_of
    ]
    pairs = [pair for pair in mine if pair.metric == board.quality[pair.row.model]]
    if not pairs:
        return Tick(title, None, "not compared")
    won = sum(pair.is_better is True for pair in pairs)
    detail = f"{won} of {len(pairs)} rows significantly better, pair by pair"
    others = []
    for side in SIDES:
        there = [p for p in mine if p not in pairs and side_of[p.row.model, p.metric] == side]
        if there:
            others.append(f"{side} {sum(pair.is_better is True for pair in there)} of {len(there)}")
    return Tick(title, won == len(pairs), "; ".join([detail, *others]))


def _ratio_and_speed(rows: Sequence[Row]) -> Tick:
    have = [
        row
        for row in rows
        if row.value("removed.params") is not None
        and any(name_of(id_) == SPEEDUP and cell.value is not None for id_, cell in row.cells.items())
    ]
    is_whole = bool(rows) and len(have) == len(rows)
    return Tick("ratio and speed-up reported", is_whole, f"{len(have)} of {len(rows)} rows")


def _reloaded(runs: Mapping[RowName, Mapping[int, Run]]) -> Tick:
    """A checkpoint that gave other logits after its reload would not have ended as ok."""
    made = [run.artifact for seeds in runs.values() for run in seeds.values() if run.artifact is not None]
    good = [artifact for artifact in made if artifact.cost is not None and "reload" in artifact.cost.seconds]
    return Tick("reload verified", bool(made) and len(good) == len(made), f"{len(good)} of {len(made)} checkpoints")


def _reproduced(method: str, board: Board) -> Tick:
    title = "published numbers reproduced"
    mine = [comparison for comparison in board.published if comparison.published.row.of == method]
    done = [comparison for comparison in mine if comparison.state in ("reproduced", "off")]
    if not mine:
        return Tick(title, None, "none are known")
    if not done:
        waiting = sum(comparison.state == "not run" for comparison in mine)
        return Tick(title, None, f"none of {len(mine)} could be compared, {waiting} are not yet run")
    good = sum(comparison.state == "reproduced" for comparison in done)
    return Tick(title, good == len(done), f"{good} of {len(done)} compared")
