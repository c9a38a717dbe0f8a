"""In Markdown: ranks and ties, dense gates, signals, published numbers with ours, report cards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from bench.record.kind import SIDES
from bench.record.kinds import form_of, kind_of
from bench.record.rows import RowName
from bench.report.board import Board, Column, Comparison
from bench.report.formats import NOTHING, escape, grid, number, title_of
from bench.report.gates import DenseGate, Signal

MARKS = {True: "✓", False: "✗", None: NOTHING}
SHORT = 60
"""Reasons with more characters than this are cut at their first colon in tables."""


def opening(board: Board, model: str) -> list[str]:
    """The headline of a model's board, and whether its dense run can be trusted."""
    headline, gate = board.headlines[model], board.gates[model]
    lines = (
        [f"In the order of `{headline.metric}` ({headline.reason})."]
        if headline.metric
        else ["In the order of their names: no quality was measured."]
    )
    if headline.left_out:
        out = ", ".join(f"`{signal.metric}`" for signal in headline.left_out)
        lines.append(f"Left out, since the dense model has no signal there: {out}.")
    lines.append(f"Dense gate **{gate.state}**: {escape(_gate_text(gate))}.")
    if not is_ranked(board, model):
        reasons = sorted({_why(board, row.identity) for row in board.of(model)} - {"", "reference"})
        lines.append(f"No row is ranked: {escape('; '.join(reasons) or 'there is nothing to compare')}.")
    return [" ".join(lines), ""]


def _gate_text(gate: DenseGate) -> str:
    done = sum(check.ok is not None for check in gate.checks)
    if gate.state == "passed":
        return f"{done} of {len(gate.checks)} known scores were measured, and all reproduced"
    return gate.reason


def _why(board: Board, row: RowName) -> str:
    """Why a row has no rank by the headline, in few words."""
    standing = board.standing(row)
    if standing is None or standing.is_ranked:
        return ""
    return standing.reason.partition(":")[0] if len(standing.reason) > SHORT else standing.reason


def is_ranked(board: Board, model: str) -> bool:
    """Whether any row of a model has a rank, by any metric."""
    return any(s.is_ranked for row in board.of(model) for s in board.standings.get(row.identity, {}).values())


def ranks(board: Board, model: str) -> list[str]:
    """The rank of each row by every metric that counts, among the rows of its group, side by side of quality."""
    headline = board.headlines[model]
    columns = {column.id: column for column in board.columns}
    counts = [columns[metric] for metric in (headline.metric, *headline.others) if metric]
    lines: list[str] = []
    for side in SIDES:
        mine = [column for column in counts if column.kind.side == side]
        mine.sort(key=lambda column: column.id != headline.sides[side])
        table = _ranks(board, model, mine)
        lines += [f"### Ranks: {side}", "", *table] if table else []
    return [*lines, *_unranked(board, model)] if lines else []


def _ranks(board: Board, model: str, columns: Sequence[Column]) -> list[str]:
    rows, labels = [row.identity for row in board.of(model)], board.labels(model)
    found = {row: [board.standings[row].get(column.id) for column in columns] for row in rows}
    used = [i for i in range(len(columns)) if any((s := found[row][i]) is not None and s.is_ranked for row in rows)]
    heads = ["row", "among", *("<br>".join(title_of(columns[i])).replace("|", "\\|") for i in used)]
    lines = []
    for row in rows:
        standings = [found[row][i] for i in used]
        ranked = [s for s in standings if s is not None and s.is_ranked]
        if ranked:
            cells = [f"{s.text} of {s.of}" if s is not None and s.is_ranked else NOTHING for s in standings]
            lines.append([escape(labels[row]), escape(ranked[0].group), *cells])
    return grid(heads, lines, left=2) if lines else []


def _unranked(board: Board, model: str) -> list[str]:
    labels, about = board.labels(model), defaultdict(list)
    for row in board.of(model):
        reason = _why(board, row.identity)
        if reason and reason != "reference":
            about[reason].append(labels[row.identity])
    lines = [f"- not ranked, {escape(reason)}: {escape(', '.join(rows))}" for reason, rows in about.items()]
    return [*lines, *[""] * bool(lines)]


def evidence(board: Board, model: str) -> list[str]:
    """The known dense scores with ours, and on which tasks the dense model is above chance."""
    checks = [check for check in board.gates[model].checks if check.ours is not None]
    signals = [signal for id_, signal in board.signals[model].items() if not kind_of(id_).is_derived]
    lines: list[str] = []
    if checks:
        rows = [
            [
                f"`{c.metric}`",
                _plus_minus(c.ours, c.stderr, unit),
                number(c.known.number, unit),
                MARKS[c.ok],
                escape(c.known.source),
            ]
            for c in checks
            for unit in [form_of(c.metric).unit]
        ]
        lines += ["### The dense model's known scores", ""]
        lines += grid(["metric", "ours", "known", "within 2 standard errors", "source"], rows)
    if any(signal.has_signal is not None for signal in signals):
        lines += ["### What the dense model can do", ""]
        lines += grid(["metric", "dense", "chance or baseline", "n", "p", "signal"], [_signal(s) for s in signals])
    return lines


def _signal(signal: Signal) -> list[str]:
    verdict = {True: "yes", False: "no signal", None: NOTHING}[signal.has_signal]
    p = NOTHING if signal.p is None else "< 0.001" if signal.p < 0.001 else f"{signal.p:.3f}"
    unit = form_of(signal.metric).unit
    shown = "%" if unit == "fraction" else unit
    values = (NOTHING if x is None else f"{number(x, unit)} {shown}" for x in (signal.value, signal.chance))
    return [f"`{signal.metric}`", *values, f"{signal.n}", p, verdict]


def published(board: Board, model: str) -> list[str]:
    """Published numbers of the model's rows with ours; where the protocols differ, what differs."""
    mine = [c for c in board.published if c.row is not None and c.row.model == model and not c.published.row.known]
    if not mine:
        return []
    labels = board.labels(model)
    heads = ["row", "as published", "metric", "published", "ours", "Δ", "verdict", "source"]
    lines = [[escape(labels[c.row]) if c.row else "", *comparison_cells(c)] for c in mine]
    return ["### Published numbers with ours", "", *grid(heads, lines, left=3)]


def comparison_cells(c: Comparison) -> list[str]:
    """The cells of one published number: name, metric, theirs, ours, Δ, verdict, source."""
    unit = form_of(c.published.metric_id).unit
    ours = number(c.ours, unit) + (f" ({number(c.low, unit)}–{number(c.high, unit)})" if c.low is not None else "")
    delta = NOTHING if c.delta is None else f"{'+' if c.delta > 0 else ''}{number(c.delta, unit)}"
    verdict = f"off by {delta}" if c.state == "off" else c.state + f": {c.why}" * bool(c.why)
    return [
        escape(c.published.row.method),
        metric_of(c),
        number(c.published.number, unit),
        ours,
        delta,
        escape(verdict),
        escape(f"{c.published.source} ({c.published.conditions})"),
    ]


def metric_of(c: Comparison) -> str:
    """Our metric id, or the metric's name as printed where we have none."""
    return escape(c.published.metric) if c.published.protocol.why else f"`{c.published.metric_id}`"


def _plus_minus(value: float | None, error: float | None, unit: str) -> str:
    return number(value, unit) + (f" ± {number(error, unit)}" if error is not None else "")


def cards(board: Board) -> list[str]:
    """The report card of every method."""
    if not board.cards:
        return []
    heads = ["method", *(tick.title for tick in next(iter(board.cards.values())).ticks)]
    lines = [
        [escape(card.method), *(f"{MARKS[tick.ok]} {escape(tick.detail)}" for tick in card.ticks)]
        for card in board.cards.values()
    ]
    return [
        "## Report cards",
        "",
        "✓ the records show it, ✗ they show otherwise, – they do not say.",
        "",
        *grid(heads, lines, left=len(heads)),
    ]


def reproduction(board: Board) -> str:
    """The text of `reproduction.md`: every published number of the methods of this board's tables."""
    mine = [c for c in board.published if c.published.row.of]
    states = ("reproduced", "off", "not comparable", "not run")
    methods = sorted({c.published.row.of for c in mine})
    lines = [
        "# Reproduction report",
        "",
        (
            "Every published number of the methods and controls here, made by `leanboard report` from "
            "`published/*.yaml` and the records. *Reproduced*: the published number lies in our 95 % interval, or is "
            "ours as far as it was printed (a known dense score: within two standard errors). In full: "
            "`reproduction.csv`."
        ),
        "",
    ]
    counts = [
        [method, *(str(sum(c.state == state for c in mine if c.published.row.of == method)) for state in states)]
        for method in methods
    ]
    lines += grid(["about", *states], counts)
    heads = ["as published", "model", "ratio", "tuned", "metrics", "published", "ours", "Δ", "verdict"]
    for method in methods:
        about = [c for c in mine if c.published.row.of == method]
        lines += [f"## {escape(method)}", ""]
        for (source, conditions), group in groupby(about, key=lambda c: (c.published.source, c.published.conditions)):
            lines += [f"{escape(source)} ({escape(conditions)}):", "", *grid(heads, _reproduced(list(group)), left=5)]
    return "\n".join(lines)


def _reproduced(about: Sequence[Comparison]) -> list[list[str]]:
    """A line for each number that was compared; those not compared for the same reason share one."""
    lines = []
    for _, group in groupby(about, key=lambda c: (id(c.published.row), c.state, c.why, c.ours)):
        same = list(group)
        row = same[0].published.row
        who = [escape(text) or NOTHING for text in (row.method, row.model, row.ratio, row.finetuned)]
        _, metric, theirs, ours, delta, verdict, _ = comparison_cells(same[0])
        if len(same) > 1:
            metric = ", ".join(metric_of(c) for c in same)
            theirs = ", ".join(number(c.published.number, form_of(c.published.metric_id).unit) for c in same)
        lines.append([*who, metric, theirs, ours, delta, verdict])
    return lines
