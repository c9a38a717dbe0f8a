"""Names of rows: how they are written, found again, and made again. The same wherever a row is named.

A row is MODEL/METHOD/PRESET/RECOVERY/TARGET. Any words of that, in any order, name it where they fit no other row:
'saap + lora params=0.2', 'smollm2-135m · saap · default · seed 0', 'saap/lora'. A label is the shortest name among the
rows of a model. A name with all words of one label means that row: 'saap' is the row without '+ lora'.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.record.schema import BaseRecord

SHAPE = "MODEL/METHOD/PRESET/RECOVERY/TARGET"
SEED = re.compile(r"(?:^|(?<=\W))seed (\d+)$")


class RowName(NamedTuple):
    """The five parts that identify a row of the board."""

    model: str
    method: str
    preset: str
    recovery: str
    target: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def title(self) -> str:
        """In words, without parts that are 'none': 'smollm2-135m saap default + lora params=0.2'."""
        parts = [self.model, self.method, self.preset]
        parts += [f"+ {self.recovery}"] * (self.recovery != "none")
        return " ".join([*parts, *[self.target] * (self.target != "none")])

    @classmethod
    def of(cls, record: BaseRecord) -> RowName:
        return cls(record.model, record.method, record.preset, record.recovery, record.target)


def labels(rows: Iterable[RowName]) -> dict[RowName, str]:
    """A short name for each row of one model: its method, its recovery, and what differs among the method's rows."""
    every, found = list(rows), {}
    for row in every:
        same = [other for other in every if other.method == row.method]
        parts = [row.method]
        parts += [row.preset] * (len({other.preset for other in same}) > 1)
        parts += [f"+ {row.recovery}"] * (row.recovery != "none")
        parts += [row.target] * (len({other.target for other in same}) > 1)
        found[row] = " ".join(parts)
    return found


def find(text: str, rows: Sequence[RowName]) -> tuple[RowName, int | None]:
    """The row that `text` names, and the seed where it ends in 'seed N'.

    Raises:
        UsageError: no row, or several; the sentence lists them.
    """
    seed = SEED.search(text.strip())
    words = _words(text.strip()[: seed.start()] if seed else text)
    short: dict[RowName, Counter[str]] = {}
    for model in {row.model for row in rows}:
        mine = labels(row for row in rows if row.model == model)
        short |= {row: _words(label) for row, label in mine.items()}
    whole = {row: _words(str(row)) for row in rows}
    for fits in (
        lambda row: words == short[row],
        lambda row: short[row] <= words <= whole[row],
        lambda row: bool(words) and words <= whole[row],
    ):
        found = sorted(filter(fits, rows))
        if len(found) == 1:
            return found[0], int(seed[1]) if seed else None
        if found:
            listed = ", ".join(map(str, found[:4])) + ", …" * (len(found) > 4)
            raise UsageError(f"'{text}' names {len(found)} rows ({listed}); give more words of it")
    raise UsageError(f"'{text}' names no row; a name is {SHAPE}, or words of it; `leanboard report` lists the rows")


def command(record: BaseRecord, *more: str, without: Sequence[str] = ()) -> str:
    """The shell command that makes the row of `record` again; `more` are words to add, `without` options to drop."""
    words = ["run" if word == "retry" else word for word in record.provenance.command]
    for option in ("--only", "--code", *without):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    chosen = [word for name, value in RowName.of(record)._asdict().items() for word in ("--only", f"{name}={value}")]
    return shlex.join([*words, *chosen, *more])


def _words(text: str) -> Counter[str]:
    return Counter(filter(None, re.split(r"[\s/·+,]+", text)))
