"""What a result is: typed, versioned JSON, one file per cell.

An `ArtifactRecord` says how a checkpoint was made, a `MeasureRecord` what one task measured on it. Each carries the
ingredients of its key, so that two records can be compared field by field.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from bench.yamlfile import Strict

SCHEMA_VERSION: Literal[2] = 2

Status = Literal["ok", "failed", "oom", "timeout", "interrupted", "skipped"]
Direction = Literal["higher", "lower", "none"]
Finite = Annotated[float, Field(allow_inf_nan=False)]

METRIC_ID = re.compile(r"^(?P<task>[a-z0-9_]+)\.(?P<metric>[a-z0-9_]+)(?:@(?P<protocol>[a-z0-9_./+-]+))?$")


def _is_none(value: object) -> bool:
    return value is None


class Metric(Strict):
    """One number with its protocol.

    `id` is `<task>.<metric>@<protocol>` and holds everything that changes the value; two ids are never compared.
    `n` counts what the value is an average over (items, target tokens, timed rounds; 1 for a count).
    """

    id: str
    value: Finite
    unit: str
    direction: Direction
    n: int = Field(ge=1)
    stderr: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    interval: tuple[Finite, Finite] | None = Field(None, description="95 %, where it is not value ± 1.96 stderr")

    @field_validator("id")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        if not METRIC_ID.match(value):
            raise ValueError(f"'{value}' is not <task>.<metric>@<protocol>")
        return value


class Windows(Strict):
    """A sum over each window (for perplexity its negative log-likelihood, nats), and what its mean is over (tokens)."""

    nll: list[Finite]
    targets: list[int]

    @model_validator(mode="after")
    def _same_length(self) -> Windows:
        if len(self.nll) != len(self.targets) or not self.nll:
            raise ValueError("nll and targets must be equally long and not empty")
        return self


class Evidence(Strict):
    """The data that the metrics were computed from, kept so that paired tests need only the repository.

    `items`: for each accuracy metric one character per item, 1 correct, 0 wrong, in the order of the data.
    `parts`: how many of the items each part of the data has, in their order, where it has parts (MMLU's subjects).
    `chosen`: for some of them the number of the answer that was chosen, one character per item: 0-9, then a-z.
    `sums`: sums by window or item of metrics that do not share `windows`, by name: nats and bytes of a gold answer.
    `samples`: timing samples in seconds, by name (`prefill`, `decode`, `cpu`, `step`, and of the dense model).
    `machine`: the state of the machine while speed was measured: the memory's `bandwidth` (bytes/s) and the `rate` of
    matrix products (multiply-accumulates/s) in a short trial, compute `threads`, the share of a core that each had in
    it (`core_share`), cores that others used (`foreign_cores`), `swapped_bytes`, and the least seconds that a
    generation could take (`least`, `dense_least`). Where memory did not hold both models, so that each turn loaded its
    own, how often one was loaded (`loads`).
    `texts`: texts to read, by their role (`beginning`, `measured`, `dense`).
    `disturbed`: why a speed is not ranked; None where nothing else used the machine.
    """

    items: dict[str, Annotated[str, Field(pattern=r"^[01]*$")]] = {}
    parts: dict[str, Annotated[int, Field(ge=1)]] = Field({}, exclude_if=operator.not_)
    chosen: dict[str, Annotated[str, Field(pattern=r"^[0-9a-z]*$")]] = Field({}, exclude_if=operator.not_)
    windows: Windows | None = None
    sums: dict[str, Windows] = Field({}, exclude_if=operator.not_)
    samples: dict[str, list[Finite]] = {}
    machine: dict[str, Finite] = {}
    disturbed: str | None = None
    texts: dict[str, list[str]] = {}
    notes: list[str] = []

    @model_validator(mode="after")
    def _texts_belong_together(self) -> Evidence:
        if len({len(texts) for texts in self.texts.values()}) > 1:
            raise ValueError("texts must be equally many of each kind")
        return self


class Cost(Strict):
    """What compressing cost: wall seconds by stage, memory, text and training.

    `peaks` are the most bytes in use in each stage, above those before loading; `peak_memory_bytes` counts from the
    start of the transformation, so without the loaded model. Empty and None where they cannot be measured.
    """

    seconds: dict[str, Finite]
    peaks: dict[str, int] = {}
    peak_memory_bytes: int | None
    calibration_tokens: int
    optimiser_steps: int
    trainable_parameters: int


class Failure(Strict):
    """Why a cell did not end well; `peak_memory_bytes` is the worker's peak resident size, where memory was why."""

    stage: str
    code: str
    message: str
    traceback: str = ""
    peak_memory_bytes: int | None = Field(None, exclude_if=_is_none)


class Provenance(Strict):
    """Where and with what a record was made.

    `remote_code`: SHA-256 of the model's own code, where the user allowed it to be run (see `bench.foreign`).
    `model_revision`: the commit of the model's repository, where it came from the model hub.
    """

    created: str = Field(description="UTC, ISO 8601")
    seconds: Finite
    command: list[str]
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    machine: dict[str, str | int | float | None]
    remote_code: str | None = Field(None, exclude_if=_is_none)
    model_revision: str | None = Field(None, exclude_if=_is_none)


class BaseRecord(Strict):
    """The fields of all records.

    `former_key` is the key of an older schema that the file is named by. It is set when such a file is read
    (`bench.record.migrate`) and never written. Nor is `calibration`, the name of the calibration text: it is set when
    all records of a folder are read and those of the model have several texts (`bench.record.rows`).
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    former_key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = Field(None, exclude=True)
    calibration: str = Field("", exclude=True)
    status: Status
    ingredients: dict[str, Any]
    model: str
    method: str
    preset: str
    recovery: str = "none"
    target: str = Field(description="'params=0.2', or 'none' where nothing is removed or the config decides")
    seed: int
    error: Failure | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _failure_where_not_ok(self) -> BaseRecord:
        if (self.status == "ok") == (self.error is not None):
            raise ValueError(f"status '{self.status}' and error={'given' if self.error else 'missing'} do not fit")
        return self


class ArtifactRecord(BaseRecord):
    """How a checkpoint was made: what was asked, what was achieved, what it cost, what is left of each layer.

    `weights_sha256` hashes the weight files that were saved (`bench.checkpoint_files`): what was measured.
    """

    kind: Literal["artifact"] = "artifact"
    achieved: dict[str, Finite] = Field({}, description="removed fraction by basis: params, block_params, macs")
    widths: list[tuple[int, int, int]] = Field([], description="heads, key/value heads, MLP channels of each layer")
    cost: Cost | None = None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(None, exclude_if=_is_none)


class MeasureRecord(BaseRecord):
    """What one task measured on one checkpoint."""

    kind: Literal["measure"] = "measure"
    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="key of the checkpoint")]
    task: str = Field(description="task id, e.g. 'piqa@0shot/limit20'")
    metrics: list[Metric] = []
    evidence: Evidence = Evidence()


Record = Annotated[ArtifactRecord | MeasureRecord, Field(discriminator="kind")]
RECORD: TypeAdapter[ArtifactRecord | MeasureRecord] = TypeAdapter(Record)
