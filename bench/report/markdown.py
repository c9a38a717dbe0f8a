"""The board as Markdown: a section for each model, and footnotes that explain it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.protocol import FLAGS, flags_of
from bench.record.kinds import ACCURACY, COST, KINDS
from bench.report.board import WORSE, Board, Column, Row
from bench.report.formats import ARROWS, NOTHING, cell_text, difference, escape, grid, smoke_notes, title_of
from bench.report.four_sides import four_sides
from bench.report.headline import is_baseline
from bench.report.matrix import KEYS, matrix_of
from bench.report.paired import Pair
from bench.report.verdicts import cards, evidence, is_ranked, opening, published, ranks

Part = tuple[str, Callable[[Row], str]]

KEY_NAMES = (
    "removed.params",
    "params.stored",
    "generate.tokens_per_s",
    "generate.speedup",
    "generate.roofline_speedup",
    "cost.seconds",
    "cost.peak_memory",
)
GENERAL = (
    "↑ higher is better, ↓ lower is better, – not measured. Below a name stands its protocol: numbers of two protocols "
    "never share a column.",
    "± is one standard error of the value, in a row of several seeds the standard deviation between them; (a–b) is a "
    "95 % interval. What failed or was skipped shows its code; `stale` is what was measured by an older engine than "
    "the newest here.",
)
RANKS = (
    "*Rank*: an interval, among the rows of one model that were asked for the same target and had the same recovery "
    "(or trained as many numbers): from 1 plus the rows that are significantly better, to all but those that are "
    "significantly worse, at 5 % after Holm's correction for all pairs of the group. Rows whose intervals overlap may "
    "be ties. A single task is tested by McNemar's exact test, means and perplexities by the paired bootstrap. A row "
    "of one seed stands for that checkpoint, not for the method."
)

ORDER = (
    "*Does the order hold*: of all pairs of rows of one group, how many two sides of quality put in the same order, by "
    "point value. Kendall's τ-b is 1 where all are, 0 where as many are as are not, −1 where none is; in brackets 95 % "
    "of its values when items and windows are drawn again, which can only blur an order that is there."
)


def markdown(board: Board) -> str:
    """The text of `leaderboard.md`."""
    lines = ["# Leaderboard", ""]
    if not board.rows:
        return "\n".join([*lines, "No records yet: `leanboard run SUITE` makes some.", ""])
    lines += [
        "Made by `leanboard report` from the records under `runs`. The dense model comes first, then target by target",
        "the best by point value; what that order is worth say the ranks. In full precision: `leaderboard.csv`, "
        "`long.csv`, `paired.csv`.",
        "",
    ]
    for model in board.models():
        lines += [f"## {escape(model)}", "", *_section(board, model)]
    return "\n".join([*lines, *cards(board), "## How to read it", "", *(f"- {note}" for note in _footnotes(board)), ""])


def _section(board: Board, model: str) -> list[str]:
    headline = {member for group in board.groups for member in group.by_name}
    columns = [c for c in board.columns_of(model) if not is_baseline(c)]
    accuracy = [c for c in columns if c.kind is ACCURACY]
    variants = [c for c in accuracy if headline and c.name not in headline]
    others = [kind for kind in KINDS if kind.is_part and kind is not ACCURACY]
    means = [c for c in columns if c.kind.over and any(row.value(c.id) is not None for row in board.of(model))]
    key = [c for c in columns if (c.kind.leads and not c.kind.is_part) or c.name in KEY_NAMES]
    key = sorted([*key, *means], key=lambda c: (c.kind is COST, board.columns.index(c)))
    tables = {
        "Accuracy": [c for c in accuracy if c not in variants],
        "The tasks' other accuracies": variants,
        **{kind.section: [c for c in columns if c.kind is kind] for kind in others},
        "Size, speed and cost in detail": [c for c in columns if c not in key and not c.kind.side],
    }
    sides = four_sides(board, model)
    lines = opening(board, model) + _text_line(board, model) + [*sides, *["### Key numbers", ""] * bool(sides)]
    lines += _table(board, model, key, [("status", lambda row: row.status)])
    lines += ranks(board, model)
    for title, shown in tables.items():
        lines += [f"### {title}", "", *_table(board, model, shown)] if shown else []
    lines += _matrix(board, model) + _pairs(board, model) + published(board, model) + evidence(board, model)
    remarks = [f"- {escape(', '.join(rows))}: {escape(remark)}" for remark, rows in board.remarks(model).items()]
    return [*lines, *remarks, *[""] * bool(remarks)]


def _matrix(board: Board, model: str) -> list[str]:
    matrix = matrix_of(board, model)
    if matrix is None:
        return []
    lines = [[escape(cell) for cell in line] for line in matrix.lines]
    return [f"### Recovery matrix: `{matrix.metric}`", "", *grid(matrix.heads, lines, left=len(KEYS))]


def _pairs(board: Board, model: str) -> list[str]:
    """Each row against its controls: the difference, its interval and p-value, metric by metric."""
    mine = [pair for pair in board.pairs if pair.row.model == model]
    if not mine:
        return []
    metrics = [c for c in board.columns_of(model) if any(p.metric == c.id for p in mine)]
    found = {(pair.row, pair.control, pair.metric): pair for pair in mine}
    places = {row.identity: i for i, row in enumerate(board.of(model))}
    keys = sorted({(pair.row, pair.control) for pair in mine}, key=lambda key: (places[key[0]], key[1]))
    heads = [f"{_pair_title(c)}<br>{c.protocol}{' smoke' * (c.id in board.smoke)}" for c in metrics]
    lines = ["### Against the controls, pair by pair", ""]
    names_texts = any(pair.row.calibration for pair in mine)
    body = [
        [
            *map(escape, (row.method, row.preset, row.recovery, row.target)),
            *[escape(row.calibration or NOTHING)] * names_texts,
            escape(control),
            *(_pair_text(found.get((row, control, column.id))) for column in metrics),
        ]
        for row, control in keys
    ]
    names = ["method", "preset", "recovery", "target", *["calibration"] * names_texts, "against"]
    return [*lines, *grid([*names, *heads], body, left=len(names))]


def _pair_title(column: Column) -> str:
    gap = column.kind.gap
    return f"{column.task} {gap.what} ({gap.unit}){ARROWS[column.direction]}"


def _pair_text(pair: Pair | None) -> str:
    if pair is None:
        return NOTHING
    value, interval, p = difference(pair)
    return f"{value} ({interval}), {p}"


def _text_line(board: Board, model: str) -> list[str]:
    """A sentence for each kind whose usual metric is missing while others of it are there."""
    lines: list[str] = []
    for kind in KINDS:
        here = [column for column in board.columns_of(model) if column.kind is kind]
        if kind.no_first and here and not any(column.name in kind.first for column in here):
            lines += [kind.no_first.format(", ".join(sorted({column.task for column in here}))), ""]
    return lines


def _table(board: Board, model: str, columns: Sequence[Column], more: Sequence[Part] = ()) -> list[str]:
    """A table of `columns`; rows that have nothing in any of them are left out."""
    rows = [row for row in board.of(model) if more or any(column.id in row.cells for column in columns)]
    names: list[Part] = [
        ("method", lambda row: row.identity.method + " ▼" * (WORSE in row.notes)),
        ("preset", lambda row: row.identity.preset),
        ("recovery", lambda row: row.identity.recovery),
        ("target", lambda row: row.identity.target),
    ]
    if any(row.identity.calibration for row in rows):
        names.append(("calibration", lambda row: row.identity.calibration or NOTHING))
    if any(row.seeds > 1 for row in rows):
        names.append(("seeds", lambda row: str(row.seeds)))
    if more and is_ranked(board, model):
        names.append(("rank", lambda row: _rank(board, row)))
    parts = [*names, *(_part(board, model, column) for column in columns), *more]
    head = ["<br>".join(escape(line) for line in header.split("\n") if line) for header, _ in parts]
    rule = ["---"] * len(names) + ["--:"] * len(columns) + ["---"] * len(more)
    body = [[escape(show(row)) for _, show in parts] for row in rows]
    return [*("| " + " | ".join(line) + " |" for line in [head, rule, *body]), ""]


def _rank(board: Board, row: Row) -> str:
    standing = board.standing(row.identity)
    return standing.text if standing is not None else NOTHING


def _part(board: Board, model: str, column: Column) -> Part:
    title = "\n".join(title_of(column, column.id in board.smoke, column.id in board.no_signal(model)))
    return title, lambda row: cell_text(row.cells.get(column.id), column.unit)


def _footnotes(board: Board) -> list[str]:
    here = [kind for kind in KINDS if any(column.kind is kind for column in board.columns)]
    flags = {flag for column in board.columns for flag in flags_of(column.protocol)}
    notes = [*GENERAL, *(kind.footnote for kind in here if kind.footnote)]
    notes += [f"`+{flag}`: {meaning}." for flag, meaning in FLAGS.items() if flag in flags]
    if any(WORSE in row.notes for row in board.rows):
        notes.append("▼ worse than `random` at the same target, by point estimate in the column that orders the rows.")
    if board.pairs:
        notes.append(
            "*Pair by pair*: the row minus the control on the same windows (difference of the mean loss) and the same "
            "items (difference of the mean): ↓ in the head says that below 0 is better, ↑ above 0. With a 95 % "
            "interval and a two-sided p-value by a t-test whose standard error is that of a paired bootstrap (moving "
            "blocks of windows; items within each task; seeds). Not corrected for the number of comparisons."
        )
    if any(matrix_of(board, model) for model in board.models()):
        notes.append(
            "*Recovery matrix*: the metric that orders the rows, without and with training afterwards; the change is "
            "that of the same windows or items, with a 95 % interval."
        )
    if any(is_ranked(board, model) for model in board.models()):
        notes.append(RANKS)
    if board.agreements:
        notes.append(ORDER)
    if any(board.no_signal(model) for model in board.models()):
        notes.append(
            "*no signal*: the dense model does not do significantly better there than a baseline, at 5 %, or not on "
            "some task of that mean; neither is ranked, nor part of the headline. Shares are held against chance "
            "(exact binomial test; where guessing gives nothing, six must be right), bits per byte against the same "
            "answers after other items' contexts (paired t-test); flips go by their accuracy."
        )
    smoke = smoke_notes(board, board.columns)
    notes += [f"*{note.replace(':', '*:', 1)}; shows that all works, not how good a model is." for note in smoke]
    return [*notes, *_counts(board), *(escape(note) for note in board.notes)]


def _counts(board: Board) -> list[str]:
    """How many items, targets or rounds the values are averages over, where it is more than one."""
    columns: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for column in board.columns:
        cells = [row.cells[column.id] for row in board.rows if column.id in row.cells]
        counts = sorted({cell.n for cell in cells if cell.n > 1})
        if counts:
            columns[tuple(counts)].append(f"`{column.id}`")
    return [f"n = {' or '.join(map(str, counts))}: {', '.join(ids)}." for counts, ids in sorted(columns.items())]
