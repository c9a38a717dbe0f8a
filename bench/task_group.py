"""A named set of tasks of one kind, and the mean over them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from bench.record.kind import Kind
from bench.record.kinds import kind_of, name_of, split
from bench.task_kind import BaseTask

MIXED = "mixed"
"""The protocol of a mean over tasks that each have their own."""


class TaskGroup(BaseTask):
    """A named set of tasks with a mean that exists only where every member does.

    Members are measured under one protocol, which a suite chooses, or each under its own, which the group fixes: its
    mean then has the protocol `mixed`, with the limit that the members share.
    """

    kind: Literal["group"]
    members: tuple[str, ...] = Field(
        min_length=1, description="<task>.<metric> of each member, all with an @<protocol> or none"
    )

    @model_validator(mode="after")
    def _alike(self) -> TaskGroup:
        kinds = {kind_of(member) for member in self.members}
        if any(not kind.mean for kind in kinds):
            bad = next(member for member in self.members if not kind_of(member).mean)
            raise ValueError(f"members: '{bad}' is not a metric that has a mean over tasks")
        if len(kinds) > 1:
            raise ValueError(f"members: {' and '.join(sorted(kind.name for kind in kinds))} have no mean in common")
        if len({"@" in member for member in self.members}) > 1:
            raise ValueError("members: all of them fix their protocol, or none does")
        return self

    @property
    def metric_kind(self) -> Kind:
        """The kind of the members' metrics."""
        return kind_of(self.members[0])

    @property
    def is_mixed(self) -> bool:
        """Whether each member has its own protocol."""
        return "@" in self.members[0]

    @cached_property
    def by_name(self) -> Mapping[str, str]:
        """Member by the name of its metric, `<task>.<metric>`."""
        return {name_of(member): member for member in self.members}

    def suffix(self, metric: str) -> str | None:
        """The protocol of the mean that a metric id is part of; None where it is part of none."""
        member = self.by_name.get(name_of(metric))
        if member is None or not self.is_mixed:
            return member and split(metric)[2]
        rest = metric.removeprefix(member)
        return MIXED + rest if rest == "" or rest.startswith("/limit") else None

    def parts(self, suffix: str) -> tuple[str, ...]:
        """The metric ids that the mean under this protocol is made of."""
        if self.is_mixed:
            return tuple(member + suffix.removeprefix(MIXED) for member in self.members)
        return tuple(f"{member}@{suffix}" for member in self.members)

    def mean(self, suffix: str) -> str:
        """The id of that mean."""
        return f"{self.name}.{self.metric_kind.mean}@{suffix}"
