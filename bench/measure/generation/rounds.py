"""Rounds: dense and compressed model in turn, A-B-B-A, so that a drift of the machine cancels in their ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median

from bench.errors import LeanboardError
from bench.measure.generation.backend import Workload
from bench.measure.generation.timing import Client, Generation

WARM_UP_NEW = 8
WARM_UP_MOST = 5
WARM_UP_AGREE = 3
WARM_UP_SPREAD = 0.05
WAITED_MOST = 0.1
FIRST_MOST = 1.2
GAIN_LEAST = 1.1

Rounds = dict[str, list[Generation]]
"""The generations of each model, round by round."""


def alternate(
    clients: Mapping[str, Client],
    work: Workload,
    rounds: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    begun: bool = False,
) -> tuple[Rounds, list[str]]:
    """Warm the models up, the last one first, and time `rounds` generations of each, A-B-B-A; also notes on what was
    not steady.

    `begun`: all have generated this workload before.

    Raises:
        LeanboardError: what was timed is not the workload.
    """
    notes = [
        f"warm-up of the {name} model did not settle within {WARM_UP_MOST} tries"
        for name, client in reversed(list(clients.items()))
        if not warm_up(client, work, begun)
    ]
    found: Rounds = {name: [] for name in clients}
    played: list[Generation] = []
    for round_ in range(rounds):
        for name in clients if round_ % 2 == 0 else reversed(list(clients)):
            played.append(clients[name].generate(work))
            found[name].append(played[-1])
        on_progress(round_ + 1, rounds)
    check_one_by_one(played)
    for name, generations in found.items():
        check_waited(name, generations)
        if first_is_slow(generations):
            notes.append(f"the first round of the {name} model was slower than all others: it had not warmed up")
    return found, notes


def saturate(
    clients: Mapping[str, Client],
    work: Workload,
    most: int,
    rounds: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[int, Rounds], list[str]]:
    """`alternate` at the batch of `work`, twice it and so on up to `most`, until no model's throughput grows by 10 %.

    Returns the rounds by batch. With `most` the batch of `work` itself, only that runs. All have generated `work`
    before.
    """
    found: dict[int, Rounds] = {}
    notes: list[str] = []
    batches = [work.batch]
    while batches[-1] * 2 <= most:
        batches.append(batches[-1] * 2)
    best: dict[str, float] = dict.fromkeys(clients, 0.0)
    for batch in batches:
        played = len(found) * rounds

        def progress(done: int, total: int, played: int = played) -> None:
            on_progress(played + done, total * len(batches))

        now = Workload(batch, work.prompt, work.new)
        found[batch], more = alternate(clients, now, rounds, progress, begun=now == work)
        notes += [f"batch {batch}: {note}" if len(batches) > 1 else note for note in more]
        rates = {name: throughput(generations) for name, generations in found[batch].items()}
        if all(rate < GAIN_LEAST * best[name] for name, rate in rates.items()):
            break
        best = {name: max(rate, best[name]) for name, rate in rates.items()}
    return found, notes


def throughput(generations: Sequence[Generation]) -> float:
    """New tokens a second, of all sequences; the median over rounds."""
    return median(g.tokens / g.total for g in generations)


def warm_up(client: Client, work: Workload, begun: bool = False) -> bool:
    """Generate all once (unless that was done before), then a few tokens until three successive times agree within 5 %.

    False where they never do.
    """
    if not begun:
        client.generate(work)
    few = Workload(work.batch, work.prompt, min(work.new, WARM_UP_NEW))
    seconds: list[float] = []
    for _ in range(WARM_UP_MOST):
        seconds.append(client.generate(few).total)
        latest = seconds[-WARM_UP_AGREE:]
        if len(latest) == WARM_UP_AGREE and max(latest) <= min(latest) * (1 + WARM_UP_SPREAD):
            return True
    return False


def check_one_by_one(played: Sequence[Generation]) -> None:
    """Each generation starts after the one before it, of whichever model, and its clock only goes forwards."""
    end = float("-inf")
    for generation in played:
        stamps = [end, *generation.stamps]
        if any(later < earlier for earlier, later in pairwise(stamps)):
            raise LeanboardError("a timed generation starts before the one before it ended: the clock was not reset")
        end = stamps[-1]


def check_waited(name: str, generations: Sequence[Generation]) -> None:
    """Check that the device was idle when the clock was read: reading the ids then takes almost no time."""
    waited, total = median(g.waited for g in generations), median(g.total for g in generations)
    if waited > WAITED_MOST * total:
        raise LeanboardError(
            f"{name} model: the device was still at work for {waited:.3g} s after the {total:.3g} s that were timed: "
            "it was not waited for"
        )


def first_is_slow(generations: Sequence[Generation]) -> bool:
    """Whether the first round took a fifth longer than the longest of the others."""
    first, *others = [g.total for g in generations]
    return bool(others) and first > FIRST_MOST * max(others)
