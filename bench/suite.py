"""A suite: which models, methods, targets, seeds and tasks make up a board. The schema of `tasks/suites/*.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bench.errors import UsageError, unknown
from bench.method import Target
from bench.paths import SUITES
from bench.record.rows import text_name
from bench.task_kind import DataRef
from bench.yamlfile import Strict, read_yaml, validated

RecoveryChoice = Literal["preset", "none"] | dict[str, Any]
"""Training after compression: that of the method's preset, none, or {name: lora, …}."""


class TextSource(Strict):
    """A column of a file of the data pack.

    Where no column is named, instructions and labelled pairs are recognised by theirs. `sampler` is how calibration
    windows are taken: from random `documents` that are long enough (LLM-Pruner; SparseGPT and Wanda on C4), or at
    random places of the `joined` text (SparseGPT, Wanda and SliceGPT on WikiText-2).
    """

    data: DataRef
    column: str = "text"
    rows: tuple[int, int] | None = Field(None, description="only rows [first, last), so that others stay unseen")
    sampler: Literal["documents", "joined"] = Field("documents", exclude_if=lambda value: value == "documents")

    @property
    def name(self) -> str:
        return text_name(self.model_dump(mode="json"))


class RandomTokens(Strict):
    """Random token ids in place of a text, for models with random weights, which have no tokenizer."""

    random_tokens: int = Field(gt=0, description="size of the vocabulary they are drawn from")


class SuiteMethod(Strict):
    """A method of the board: its preset, and what the suite changes in it."""

    name: str
    preset: str = "default"
    config: dict[str, Any] = Field({}, description="fields that replace those of the preset")
    recovery: RecoveryChoice | None = Field(None, description="replaces the suite's recoveries")
    targets: list[Target] | None = Field(None, description="replace the suite's targets; [] leaves it to the config")
    calibration: TextSource | None = Field(None, description="replaces the suite's calibration texts")
    training: TextSource | None = Field(None, description="replaces the suite's training text")
    tasks: list[str] = Field([], description="more tasks than the suite's, for this method's checkpoints alone")


class FirstOf(Strict):
    """Alternatives: the first task whose data is available is run, under its own metric id."""

    first_of: list[str] = Field(min_length=2)


class Suite(Strict):
    """A validated suite file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    models: list[str] = Field(min_length=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seeds: list[int] = Field([0], min_length=1)
    targets: list[Target] = []
    recoveries: list[RecoveryChoice] = Field(
        ["preset"], min_length=1, description="each method that removes something is run with each of these"
    )
    calibration: TextSource | None = Field(None, description="text that methods calibrate on")
    calibrations: list[TextSource] = Field(
        [],
        validate_default=True,
        description="several such texts instead: a method that reads one gets a row for each, which names it",
    )
    training: TextSource | None = Field(None, description="text that training methods and recoveries learn from")
    methods: list[SuiteMethod] = Field(min_length=1)
    tasks: list[str | FirstOf] = Field(min_length=1)

    @field_validator("methods", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"name": item} if isinstance(item, str) else item for item in value]

    @field_validator("calibrations")
    @classmethod
    def _one_way_to_calibrate(cls, value: list[TextSource], info: ValidationInfo) -> list[TextSource]:
        if "calibration" in info.data and (info.data["calibration"] is None) != bool(value):
            raise ValueError("give either one text as calibration, or several here")
        names = [source.name for source in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is there twice")
        return value

    def texts(self) -> list[TextSource]:
        """The texts that methods calibrate on."""
        return self.calibrations if self.calibration is None else [self.calibration]

    def all_texts(self) -> list[TextSource]:
        """Every text that some method calibrates or trains on."""
        own = [text for method in self.methods for text in (method.calibration, method.training)]
        return [text for text in (*self.texts(), self.training, *own) if text is not None]


def load_suite(name_or_file: str) -> Suite:
    """A suite by file or by the name of a built-in one ('smollm').

    Raises:
        UsageError: there is no such suite, or the file does not fit the schema.
    """
    file = Path(name_or_file)
    if not file.is_file():
        known = {f.stem: f for f in SUITES.glob("*.yaml")}
        if file.suffix in (".yaml", ".yml") or file.parent != Path("."):
            stem = file.stem if file.stem in known else ""
            hint = f"; the suite '{stem}' is built in under that name" if stem else ""
            raise UsageError(f"{file}: there is no such suite file{hint}")
        if name_or_file not in known:
            raise unknown("suite", name_or_file, known)
        file = known[name_or_file]
    return validated(Suite, read_yaml(file), file)
