"""From scores to what is kept: local and global selection as in LLM-Pruner's code, and steering to a size target."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from bench.blocks.groups import Kept, Scores, Shape, keep_groups
from bench.errors import MethodError
from bench.method import TARGET_TOLERANCE, Target

CLOSE = 0.001
Choose = Callable[[float, float], Kept]


@dataclass(frozen=True)
class Module:
    """The groups of one attention or MLP, worst first: their indices, their scores, how many the dense one had."""

    groups: Sequence[int]
    scores: Sequence[float]
    initial: int

    @classmethod
    def of(cls, scores: Sequence[float], initial: int) -> Module:
        order = sorted(range(len(scores)), key=scores.__getitem__)
        return cls(order, [scores[i] for i in order], initial)

    def without(self, removed: int) -> Sequence[int]:
        """The groups that are left when the worst `removed` go; the best always stays."""
        return self.groups[max(0, min(removed, len(self.groups) - 1)) :]


class Ranking:
    """The groups of a model in the order of their scores.

    `dense` is the model before anything was removed, which the ratios are fractions of; `current` (at first the same)
    is the model that `scores` are of, and the kept indices are its own. Equal scores go by index.
    """

    def __init__(self, dense: Shape, current: Shape, scores: Scores) -> None:
        self.shape = current
        self.attention = {
            layer: Module.of(vector.tolist(), dense.blocks[layer].kv_heads)
            for layer, vector in scores.attention.items()
        }
        self.mlp = {
            layer: Module.of(vector.tolist(), dense.blocks[layer].channels) for layer, vector in scores.mlp.items()
        }

    def module_wise(self, attention_ratio: float, mlp_ratio: float, round_to: int = 1) -> Kept:
        """Remove the same fraction of groups from every module (local ranking).

        Counts are in rows, truncated as Python's int() does: a module of n rows keeps int(n·(1 - ratio)) of them, whole
        heads at a time.
        """
        rows = self.shape.head_dim
        attention = {
            layer: m.without(excess(len(m.groups) * rows, m.initial * rows, attention_ratio) // rows)
            for layer, m in self.attention.items()
        }
        mlp = {
            layer: m.without(_rounded(excess(len(m.groups), m.initial, mlp_ratio), round_to))
            for layer, m in self.mlp.items()
        }
        return keep_groups(self.shape, attention, mlp)

    def overall(self, ratio: float, round_to: int = 1) -> Kept:
        """Remove the lowest groups of all modules together (global ranking); a head counts as one, like a channel.

        Everything up to the threshold goes, ties included; a module that would be emptied stays whole, as in the
        published code.
        """
        initial = sum(m.initial for m in (*self.attention.values(), *self.mlp.values()))
        removed = excess(len(self._all_scores), initial, ratio)
        if removed <= 0:
            return self.shape.keep_all()
        threshold = self._all_scores[removed - 1]

        def below(modules: Mapping[int, Module], multiple: int) -> dict[int, Sequence[int]]:
            counts = {layer: _rounded(bisect_right(m.scores, threshold), multiple) for layer, m in modules.items()}
            return {
                layer: m.without(counts[layer] if counts[layer] < len(m.groups) else 0) for layer, m in modules.items()
            }

        return keep_groups(self.shape, below(self.attention, 1), below(self.mlp, round_to))

    @cached_property
    def _all_scores(self) -> list[float]:
        modules = (*self.attention.values(), *self.mlp.values())
        return sorted(score for module in modules for score in module.scores)


def excess(current: int, initial: int, ratio: float) -> int:
    """How many of `current` go so that int(initial·(1 - ratio)) stay; not below 0."""
    return max(0, current - int(initial * (1 - ratio)))


def to_target(
    shape: Shape, target: Target, choose: Choose, *, current: Shape | None = None, must_reach: bool = True
) -> Kept:
    """Steer `choose(attention_ratio, mlp_ratio)` until the removed fraction of `shape` is the target's.

    One ratio for both is tried first. Where the heads' coarse steps keep it further than 0.001 from the target, the
    attention ratio is frozen on the side of the step that lands nearer, and the MLP ratio alone does the rest. The kept
    indices are those of `current`, the model as it now is (by default `shape`). A target of basis `group_ratio` is
    handed to `choose` as it is. Unless `must_reach` is False the result is within 0.005 of the target.

    Raises:
        MethodError: the target cannot be reached; the sentence gives the nearest values that can.
    """
    if target.basis == "group_ratio":
        return choose(target.value, target.value)
    start = current or shape

    def trial(attention_ratio: float, mlp_ratio: float) -> SizeTrial:
        kept = choose(attention_ratio, mlp_ratio)
        removed = shape.removed(start.after(kept))[target.basis]
        return SizeTrial(attention_ratio, kept, removed, abs(removed - target.value))

    trials = _nearest(lambda ratio: trial(ratio, ratio), target.value)
    for side in sorted(trials, key=lambda t: t.error):
        if min(t.error for t in trials) > CLOSE:
            trials += _nearest(partial(trial, side.attention_ratio), target.value)
    best = min(trials, key=lambda t: t.error)
    if must_reach and best.error > TARGET_TOLERANCE:
        raise MethodError(f"target {target} cannot be reached: {_reachable(trials, target)}")
    return best.kept


@dataclass(frozen=True)
class SizeTrial:
    """One setting of the ratios: what it keeps, the fraction it removes, and how far that is from the target."""

    attention_ratio: float
    kept: Kept
    removed: float
    error: float


def _nearest(at: Callable[[float], SizeTrial], value: float, cells: int = 16, halvings: int = 14) -> list[SizeTrial]:
    """The trials just below and just above `value`; only the last below where nothing is above.

    The first cell of an even grid over the ratios that crosses `value` is halved, so that a function with steps, or one
    that falls again near 1 (the global ranking leaves whole what it would empty), is followed too.
    """
    low, below = 0.0, at(0.0)
    for i in range(1, cells + 1):
        high, above = i / cells, at(i / cells)
        if above.removed >= value:
            break
        low, below = high, max(below, above, key=lambda t: t.removed)
    else:
        return [below]
    for _ in range(halvings):
        middle = (low + high) / 2
        found = at(middle)
        if found.removed >= value:
            high, above = middle, found
        else:
            low, below = middle, found
    return [below, above]


def _reachable(trials: Sequence[SizeTrial], target: Target) -> str:
    below = max((t.removed for t in trials if t.removed <= target.value), default=None)
    above = min((t.removed for t in trials if t.removed >= target.value), default=None)
    nearest = " or ".join(f"{value:.4f}" for value in (below, above) if value is not None)
    return f"the nearest fraction of {target.basis} that can be removed is {nearest}"


def _rounded(count: int, multiple: int) -> int:
    return count - count % multiple
