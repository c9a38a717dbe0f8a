"""What every kind of task says of itself; the kinds are in `bench.task`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

DataRef = Annotated[str, Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="<dataset>/<split> of the data pack")]
NO_INGREDIENTS = {"description", "protocols", "grids", "windows", "headline", "chance", "choice", "texts"}
"""Fields of a task that describe it, list protocols or judge its numbers, but change no number."""


class BaseTask(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: int = 1
    description: str

    def data(self, protocol: str | None = None) -> list[str]:
        """The files of the data pack that it reads under `protocol`, as `<dataset>/<split>`; without one, under any."""
        return []


class TaskSpec(BaseTask, ABC):
    """A kind of task: the fields of its YAML file, and all that Leanboard must know about it.

    `module` measures it: its function `measure` takes what `bench.measure.measure` does. `engine` names that code and
    its version; it is part of the key of a measurement, so raise it whenever a number may change. `seconds` is a guess
    of how long it takes; only the proportions matter. Memory: `imports` are bytes of what it imports, without torch and
    transformers, `models` the models in memory at once, `processes` those that it starts, `working` bytes of all else
    that it does.
    """

    module: ClassVar[str]
    engine: ClassVar[str]
    seconds: ClassVar[float]
    has_limit: ClassVar[bool] = False
    """Whether a limit may be set: only its first items are measured."""
    needs_weights: ClassVar[bool] = True
    """Whether it means nothing for a model with random weights."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Flags of `bench.protocol` that its protocol may have."""
    is_timed: ClassVar[bool] = False
    """Whether it depends on the machine, and must run alone there."""
    imports: ClassVar[int] = 0
    models: ClassVar[int] = 1
    in_turn: ClassVar[bool] = False
    """Whether its models are loaded one after the other, and a vector for each token and the head kept of the first."""
    needs_dense: ClassVar[bool] = False
    """Whether it needs the dense model that a checkpoint was made from."""
    processes: ClassVar[int] = 0
    cached: ClassVar[tuple[int, int]] = (0, 0)
    """Tokens whose keys and values are in memory at once, on a CPU and on a GPU."""
    working: ClassVar[int] = 0

    kind: str

    @abstractmethod
    def protocol(self, given: str | None) -> str:
        """The protocol that `given` stands for, the usual one where it is None. Raises UsageError where none is."""

    def protocols_of(self, given: str | None) -> list[str]:
        """The same, but several where `given` names a set of them."""
        return [self.protocol(given)]

    def with_tasks(self, protocol: str, tasks: Mapping[str, BaseTask]) -> Self:
        """Itself, with what `protocol` takes of the other tasks by name. Raises UsageError where one is missing."""
        return self

    def usual(self) -> Sequence[str | None]:
        """Usual protocols; the first is the default."""
        return (None,)

    def settings(self, protocol: str) -> dict[str, Any]:
        """The fields that change a number under `protocol`; they enter the key."""
        return self.model_dump(mode="json", exclude=NO_INGREDIENTS)

    @classmethod
    def why_not_here(cls, protocol: str) -> str | None:
        """Why it cannot be measured in this environment; None where it can."""
        return None
