"""Names of rows: how they are written, found again, and made again. The same wherever a row is named.

A row is MODEL/METHOD/PRESET/RECOVERY/TARGET, then its calibration text where the records of its model have several.
Any words of that, in any order, name it where they fit no other row:
'saap + lora params=0.2', 'smollm2-135m · saap · default · seed 0', 'saap/lora'. A label is the shortest name among the
rows of a model. A name with all words of one label means that row: 'saap' is the row without '+ lora'.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.record.schema import ArtifactRecord, BaseRecord, MeasureRecord

SHAPE = "MODEL/METHOD/PRESET/RECOVERY/TARGET[/CALIBRATION]"
NO_TEXTS: Mapping[RowName, str] = {}
SEED = re.compile(r"(?:^|(?<=\W))seed (\d+)$")


class RowName(NamedTuple):
    """The parts that identify a row of the board; `calibration` is empty where the board has one text for its model."""

    model: str
    method: str
    preset: str
    recovery: str
    target: str
    calibration: str = ""

    def __str__(self) -> str:
        return self.joined("/")

    def joined(self, separator: str) -> str:
        """The parts that are not empty, in order."""
        return separator.join(filter(None, self))

    @property
    def title(self) -> str:
        """In words, without parts that are 'none': 'smollm2-135m saap default + lora params=0.2'."""
        parts = [self.model, self.method, self.preset]
        parts += [f"+ {self.recovery}"] * (self.recovery != "none")
        parts += [self.target] * (self.target != "none")
        return " ".join([*parts, *[self.calibration] * bool(self.calibration)])

    @classmethod
    def of(cls, record: BaseRecord) -> RowName:
        return cls(record.model, record.method, record.preset, record.recovery, record.target, record.calibration)


def text_name(text: Mapping[str, Any] | None) -> str:
    """The name of a calibration text, from its fields in a suite or in the ingredients of a key; "" for none.

    'c4/train', and what differs from the usual: 'wikitext2_raw/train+joined', 'mine/train:story[0:100]'.
    """
    if text is None:
        return ""
    if "data" not in text:
        return ", ".join(f"{name}={value}" for name, value in sorted(text.items()))
    rows, column = text.get("rows"), text.get("column", "text")
    sampler = text.get("sampler", "documents")
    return "".join(
        [
            text["data"],
            *[f":{column}"] * (column != "text"),
            *([f"[{rows[0]}:{rows[1]}]"] if rows else []),
            *[f"+{sampler}"] * (sampler != "documents"),
        ]
    )


def tell_texts_apart(records: Sequence[ArtifactRecord | MeasureRecord]) -> list[ArtifactRecord | MeasureRecord]:
    """`records` with the names of their calibration texts, where the records of their model have several."""
    names = {r.key: text_name(r.ingredients.get("calibration")) for r in records if r.kind == "artifact"}
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        found[record.model] |= {names.get(record.key, "")} - {""}
    several = {model for model, texts in found.items() if len(texts) > 1}
    return [
        r.model_copy(update={"calibration": names.get(getattr(r, "artifact", r.key), "")}) if r.model in several else r
        for r in records
    ]


def labels(rows: Iterable[RowName]) -> dict[RowName, str]:
    """A short name for each row of one model: its method, its recovery, and what differs among the method's rows."""
    every, found = list(rows), {}
    for row in every:
        same = [other for other in every if other.method == row.method]
        parts = [row.method]
        parts += [row.preset] * (len({other.preset for other in same}) > 1)
        parts += [f"+ {row.recovery}"] * (row.recovery != "none")
        parts += [row.target] * (len({other.target for other in same}) > 1)
        parts += [row.calibration] * (len({other.calibration for other in same}) > 1)
        found[row] = " ".join(parts)
    return found


def find(text: str, rows: Sequence[RowName], texts: Mapping[RowName, str] = NO_TEXTS) -> tuple[RowName, int | None]:
    """The row that `text` names, and the seed where it ends in 'seed N'.

    `texts` are the calibration texts of rows that do not name them yet: a suite of several names them at once.

    Raises:
        UsageError: no row, or several; the sentence lists them.
    """
    seed = SEED.search(text.strip())
    name = text.strip()[: seed.start()].strip() if seed else text.strip()
    words = _words(name)
    short: dict[RowName, Counter[str]] = {}
    full: dict[RowName, tuple[str, ...]] = {}
    for model in {row.model for row in rows}:
        mine = labels(row for row in rows if row.model == model)
        short |= {row: _words(label) for row, label in mine.items()}
        full |= {row: (str(row), row.title, f"{model} {label}") for row, label in mine.items()}
    whole = {row: _words(f"{row} {'' if row.calibration else texts.get(row, '')}") for row in rows}
    for fits in (
        lambda row: name in full[row],
        lambda row: any(words == _words(one) for one in full[row]),
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
    parts = RowName.of(record)._asdict().items()
    chosen = [word for name, value in parts if value for word in ("--only", f"{name}={value}")]
    return shlex.join([*words, *chosen, *more])


def _words(text: str) -> Counter[str]:
    return Counter(filter(None, re.split(r"[\s/·+,]+", text)))
