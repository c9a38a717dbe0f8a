"""Compare every published number with what was measured here: reproduced, off, not comparable, or not yet run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.record.kinds import kind_of, name_of, split
from bench.report.board import Comparison, Row, State
from bench.report.gates import DenseCheck, DenseGate
from bench.report.published import Counterpart, Published
from bench.report.stats import rounded


def compare(published: Sequence[Published], rows: Sequence[Row], gates: Mapping[str, DenseGate]) -> list[Comparison]:
    """Compare each published number with the board's rows; for known dense scores take the gates' verdict."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.identity.model, row.identity.method), []).append(row)
    checks = {(model, check.metric): check for model, gate in gates.items() for check in gate.checks}
    return [_gated(number, checks, found) or _compared(number, found) for number in published]


def _gated(
    number: Published, checks: Mapping[tuple[str, str], DenseCheck], rows: Mapping[tuple[str, str], Sequence[Row]]
) -> Comparison | None:
    """A known dense score that a gate was able to check."""
    ours = number.row.ours
    check = checks.get((ours.model, number.metric_id)) if ours and number.row.known else None
    if ours is None or check is None or check.ours is None or check.stderr is None:
        return None
    reach = 2 * check.stderr
    return Comparison(
        number,
        "reproduced" if check.ok else "off",
        rows[ours.model, ours.method][0].identity,
        check.ours,
        rounded(check.ours - reach),
        rounded(check.ours + reach),
        rounded(check.ours - number.number),
    )


def _compared(number: Published, rows: Mapping[tuple[str, str], Sequence[Row]]) -> Comparison:
    ours = number.row.ours
    if number.why or ours is None:
        return Comparison(number, "not comparable", why=number.why)
    row, differs = _nearest(ours, rows.get((ours.model, ours.method), ()))
    if row is None:
        return Comparison(number, "not run", why=differs)
    if differs:
        return Comparison(number, "not comparable", row.identity, why=differs)
    cell = row.cells.get(number.metric_id)
    if cell is None or cell.value is None:
        other = _other_protocol(number, row)
        lost = ", ".join(cell.lost) if cell is not None else ""
        state: State = "not comparable" if other and not lost else "not run"
        return Comparison(number, state, row.identity, why=lost or other or f"{number.metric_id} was not measured")
    low, high = cell.interval95 or (None, None)
    value = float(cell.value)
    delta = rounded(value - number.number)
    is_in = low is not None and high is not None and low <= number.number <= high
    is_same = is_in or abs(delta) <= number.rounding
    return Comparison(number, "reproduced" if is_same else "off", row.identity, value, low, high, delta)


def _nearest(wanted: Counterpart, rows: Sequence[Row]) -> tuple[Row | None, str]:
    """The wanted row, or else one with the same target and recovery, and what differs about it."""
    same = [
        row
        for row in rows
        if row.has_checkpoint and (row.identity.target, row.identity.recovery) == (wanted.target, wanted.recovery)
    ]
    for row in same:
        if wanted.preset in (None, row.identity.preset):
            return row, ""
    if same:
        return same[0], f"preset {wanted.preset} ≠ {', '.join(row.identity.preset for row in same)}"
    recovery = f", recovery {wanted.recovery}"
    return None, f"no row {wanted.model} / {wanted.method} at {wanted.target}{recovery}"


def _other_protocol(number: Published, row: Row) -> str:
    """What differs in the protocol under which the row has this metric, '' where it does not have it at all."""
    name = name_of(number.metric_id)
    others = [id_ for id_, cell in row.cells.items() if name_of(id_) == name and cell.value is not None]
    return differing(number.metric_id, min(others, key=_protocol_order)) if others else ""


def _protocol_order(metric: str) -> tuple[bool, str]:
    return "/limit" in metric, metric


def differing(theirs: str, ours: str) -> str:
    """The field in which two protocols of one metric id differ, theirs first: 'window 128 ≠ 2048'."""
    (a, m), (b, n) = (_split(split(metric)[2]) for metric in (theirs, ours))
    if a != b:
        return f"{kind_of(theirs).protocol} {a} ≠ {b}"
    return f"items {m or 'all'} ≠ {n or 'all'}"


def _split(protocol: str) -> tuple[str, str]:
    limit = re.search(r"/limit(\d+)$", protocol)
    return (protocol[: limit.start()], f"first {limit[1]}") if limit else (protocol, "")
