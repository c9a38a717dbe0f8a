"""What is known of a kind of metric, and the four sides of quality that kinds belong to. Neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.record.schema import Direction

Side = Literal["knows", "can say", "models text", "stays itself"]
SIDES: tuple[Side, ...] = ("knows", "can say", "models text", "stays itself")
"""What a compressed model may keep or lose, each by itself: choosing answers, producing them, predicting text, and
doing what the dense model does. A board ranks each side that it has; there is no mean over sides."""


@dataclass(frozen=True)
class Form:
    """One metric: the unit and direction that it is recorded in, and its title, in which `{task}` is its task.

    `over_parts`: it is the unweighted mean over the parts of its data (MMLU's subjects), not over their items.
    """

    unit: str
    direction: Direction
    title: str
    over_parts: bool = False


@dataclass(frozen=True)
class Gap:
    """How the difference of two rows is shown: `scale` times that of the means of their evidence, in `unit`."""

    what: str
    unit: str
    scale: float = 1.0
    decimals: int = 3

    def text(self, difference: float) -> str:
        """With its sign: '+0.031'."""
        return f"{self.scale * difference:+.{self.decimals}f}"


@dataclass(frozen=True, eq=False)
class Kind:
    """What metrics of one kind have in common.

    `metrics` are its metrics, by `<task>.<metric>`, or `*.<metric>` for any task. `task` is the task that measures them
    where their ids begin with something else.

    `evidence` is what a record keeps of them, for paired tests and resampling: 'items', bits that are right or wrong,
    or 'windows', sums over a number of targets each (tokens, bytes). The metric is `value` of the mean of that.
    `has_neighbours`: a window is like the next, so blocks of windows are drawn.

    `is_quality`: it counts in ranks and comparisons, on its `side` of quality; `gap` says how differences are shown.
    `needs_signal`: it ranks only where the dense model is shown to do better than a baseline. `least` is the number of
    items a task, or windows, from which it ranks; what needs more than two and has fewer is called a smoke test.
    `over` is the kind that a mean is made of; `mean` is the name of the metric of the mean over tasks of this kind.
    `is_derived`: a report computes it from several records, and none holds it (`bench.report.derived`).
    `first` names the metrics that come first; `no_first` is the sentence to print where others of the kind are there
    but those are not.

    `section` is the title on the page of a row, `noun` and `axis` are its names in plots, `protocol` is the name of its
    protocol, `footnote` explains it.
    """

    name: str
    section: str
    metrics: Mapping[str, Form]
    task: str = ""
    evidence: Literal["items", "windows"] | None = None
    value: Callable[[float], float] = float
    has_neighbours: bool = False
    is_quality: bool = False
    side: Side | None = None
    needs_signal: bool = False
    least: int = 2
    gap: Gap = field(default_factory=lambda: Gap("value", ""))
    over: Kind | None = None
    mean: str = ""
    is_derived: bool = False
    first: tuple[str, ...] = ()
    no_first: str = ""
    noun: str = ""
    axis: str = ""
    protocol: str = "protocol"
    footnote: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the items of one task, for most kinds of right ones."""
        return self.evidence == "items"

    @property
    def is_part(self) -> bool:
        """Whether it is shown next to others of its kind: of one task, where a mean over tasks says more."""
        return self.is_share or bool(self.mean)

    @property
    def leads(self) -> bool:
        """Whether it can order a board by itself; a single task's share cannot."""
        return self.is_quality and not self.is_share and self.over is None
