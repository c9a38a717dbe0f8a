"""Published numbers: `bench/published/*.yaml`, each with its source and the protocol that it was measured under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from bench.errors import UsageError
from bench.protocol import Protocol as TaskProtocol
from bench.report.stats import rounded
from bench.yamlfile import Strict, read_yaml, validated

HERE = Path(__file__).resolve().parents[1] / "published"
"""The published numbers that come with Leanboard, for every results folder."""


class Protocol(Strict):
    """How a published metric was measured, in terms of our metric ids; `why` says why it is not ours, if it is not.

    `protocol` is the window of a perplexity ('128'), the shots of an accuracy ('0shot+nobos', with '/limit200' for the
    first 200 items), with the flags of `bench.protocol`. The printed number divided by `scale` is in our unit.
    """

    task: str
    metric: str
    protocol: str = ""
    scale: float = Field(1.0, gt=0)
    why: str = ""

    @field_validator("protocol")
    @classmethod
    def _in_its_one_form(cls, value: str) -> str:
        asked, slash, rest = value.partition("/")
        try:
            return f"{TaskProtocol.parse(asked)}{slash}{rest}"
        except UsageError as error:
            raise ValueError(str(error)) from error

    @property
    def id(self) -> str:
        return f"{self.task}.{self.metric}" + (f"@{self.protocol}" if self.protocol else "")


class Counterpart(Strict):
    """The row of a board to compare a published row with; any preset where it names none."""

    model: str
    method: str
    preset: str | None = None
    recovery: str = "none"
    target: str = "none"


class PublishedRow(Strict):
    """A line of a published table, with the method's and the model's names as printed.

    `of` is our method that it is about, `ours` our row to compare it with; where no row can be the same, `why` says so.
    `known` marks the dense model's scores that a dense run of ours must reproduce.
    """

    method: str
    model: str
    params: str = ""
    ratio: str = ""
    finetuned: str = ""
    of: str = ""
    ours: Counterpart | None = None
    known: bool = False
    why: str = ""
    values: dict[str, float] = Field(min_length=1)

    @model_validator(mode="after")
    def _says_why(self) -> PublishedRow:
        if self.ours is None and not self.why:
            raise ValueError(f"row '{self.method}' names neither its counterpart (ours) nor why there is none (why)")
        return self


class PublishedTable(Strict):
    """A published table: where it stands, and under which conditions it was made, as far as that is known."""

    source: str = Field(min_length=3)
    year: int | None = Field(None, ge=2000, description="when it was published")
    harness: str = Field("", description="the program that measured, with its version")
    dtype: str = Field("", description="of the weights while they were measured")
    calibration: str = Field("", description="text that its methods calibrated on, 'none' where they had none")
    rows: list[PublishedRow] = Field(min_length=1)

    @property
    def conditions(self) -> str:
        """All of that in words, what is not known included: 'year 2023, dtype float16; not known: harness'."""
        all_ = {"year": self.year, "harness": self.harness, "dtype": self.dtype, "calibration": self.calibration}
        lacking = ", ".join(name for name, value in all_.items() if not value)
        said = ", ".join(f"{name} {value}" for name, value in all_.items() if value)
        return "; ".join(filter(None, (said, f"not known: {lacking}" * bool(lacking))))


class PublishedFile(Strict):
    """The schema of one file."""

    about: str
    metrics: dict[str, Protocol]
    tables: list[PublishedTable]

    @model_validator(mode="after")
    def _metrics_are_described(self) -> PublishedFile:
        for table in self.tables:
            for row in table.rows:
                for metric in row.values:
                    if metric not in self.metrics:
                        raise ValueError(f"metric '{metric}' of '{row.method}' has no protocol under metrics")
        return self


@dataclass(frozen=True)
class Published:
    """One published number. `value` is as printed, `number` in our unit, `metric_id` that of our measurement of it."""

    file: Path
    row: PublishedRow
    metric: str
    value: float
    protocol: Protocol
    source: str
    conditions: str = ""

    @property
    def number(self) -> float:
        return rounded(self.value / self.protocol.scale)

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit that was printed, in our unit."""
        decimals = len(repr(self.value).partition(".")[2]) if self.value % 1 else 0
        return 0.5 * 10.0**-decimals / self.protocol.scale

    @property
    def metric_id(self) -> str:
        return self.protocol.id

    @property
    def why(self) -> str:
        """Why no number of ours can be the same, '' where one can."""
        return self.row.why or self.protocol.why


def load_published(results: Path) -> list[Published]:
    """Every built-in published number, and those under `results/published`, file by file.

    Raises:
        UsageError: a file does not fit the schema; the sentence names it and the field.
    """
    found: list[Published] = []
    for path in [*sorted(HERE.glob("*.yaml")), *sorted((results / "published").glob("*.yaml"))]:
        content = validated(PublishedFile, read_yaml(path), path)
        found += [
            Published(path, row, metric, value, content.metrics[metric], table.source, table.conditions)
            for table in content.tables
            for row in table.rows
            for metric, value in row.values.items()
        ]
    _no_contradiction(found)
    return found


def _no_contradiction(found: Sequence[Published]) -> None:
    """Refuse two different known values of one dense score."""
    seen: dict[tuple[str, str], Published] = {}
    for score in known_dense(found):
        key = (score.row.ours.model if score.row.ours else "", score.metric_id)
        other = seen.setdefault(key, score)
        if other.number != score.number:
            raise UsageError(
                f"{score.file}: known: {key[1]} of {key[0]} is {score.value} here and {other.value} in {other.file}"
            )


def known_dense(published: Sequence[Published], model: str | None = None) -> list[Published]:
    """The scores that a dense run must reproduce, of one model or of all."""
    return [
        p
        for p in published
        if p.row.known and not p.why and p.row.ours is not None and model in (None, p.row.ours.model)
    ]
