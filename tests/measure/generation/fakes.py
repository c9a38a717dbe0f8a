"""A fake machine whose clock and memory are known exactly, and a fake backend on it."""

from dataclasses import dataclass
from typing import Any

from bench.measure.generation.backend import Ids, Workload
from bench.measure.generation.footprint import footprint
from bench.measure.generation.rounds import saturate
from bench.measure.generation.session import Session
from bench.measure.generation.timing import Local
from bench.record.schema import Metric
from bench.task import GenerationTask, Task

SPEC = GenerationTask(name="generate", kind="generation", description="", protocols=("hf/b2/p5/n4",), rounds=4)
TASK = Task(SPEC, "hf/b2/p5/n4")
WORK = Workload(2, 5, 4)
WEIGHTS, TOKEN_BYTES, WORKSPACE, LOADING = 10**9, 1000, 10**8, 2 * 10**9
LAUNCH = 0.001


@dataclass
class Machine:
    """Work is queued when it is given, and takes time only when the device is waited for; giving it takes a little."""

    now: float = 0.0
    queued: float = 0.0
    log: str = ""

    def launch(self, seconds: float) -> None:
        self.now += LAUNCH
        self.queued += seconds

    def wait(self) -> None:
        self.now += self.queued
        self.queued = 0.0


class Memory:
    """An allocator."""

    used = highest = 0

    def use(self, change: int) -> None:
        self.used += change
        self.highest = max(self.highest, self.used)

    def reset(self) -> int | None:
        self.highest = self.used
        return self.used

    def peak(self) -> int | None:
        return self.highest


class Fake:
    """A decoder that takes `seconds` for each position of each sequence; loading it took more memory than it keeps.

    The first time that its cache reaches `slow_at` tokens takes 1000 s more, as where something is compiled.
    """

    vocab = 50
    weight_bytes = WEIGHTS
    spread: str | None = None
    cache_reserved = False
    slow_at: int | None = None

    def __init__(self, machine: Machine, seconds: float = 1.0, name: str = "m") -> None:
        self.machine, self.seconds, self.name = machine, seconds, name
        self.passes = 0
        self.meter: Any = Memory()
        self.cache: list[int] = []
        self.meter.use(LOADING)
        self.meter.use(WEIGHTS - LOADING)

    def clear(self) -> None:
        self.meter.use(-self.cache_bytes())
        self.cache = []

    def prefill(self, prompt: Ids, new: int) -> Any:
        self.cache = [0] * len(prompt)
        self.machine.log += self.name
        return self.forward(len(prompt), len(prompt[0]))

    def decode(self) -> Any:
        return self.forward(len(self.cache), 1)

    def forward(self, batch: int, length: int) -> Any:
        """One pass: a token for each sequence."""
        self.passes += 1
        self.cache = [n + length for n in self.cache]
        self.machine.launch(self.seconds * batch * length + 1000.0 * (self.slow_at in self.cache))
        self.slow_at = None if self.slow_at in self.cache else self.slow_at
        self.meter.use(batch * length * TOKEN_BYTES)
        self.meter.use(WORKSPACE)
        self.meter.use(-WORKSPACE)
        return [7] * batch

    def cached(self) -> list[int]:
        return list(self.cache)

    def cache_bytes(self) -> int:
        return sum(self.cache) * TOKEN_BYTES

    def ids(self, passes: Any) -> Ids:
        self.machine.wait()
        return [list(sequence) for sequence in zip(*passes, strict=True)]

    def sync(self) -> None:
        self.machine.wait()


def local(backend: Fake) -> Local:
    return Local(backend, lambda: backend.machine.now, lambda: backend.machine.now)


def session(
    measured: Fake, dense: Fake | None = None, rounds: int = 4, work: Workload = WORK, most: int = 0
) -> Session:
    """What `session.play` makes of processes, made of fakes."""
    clients = {"dense": local(dense)} if dense else {}
    clients["measured"] = local(measured)
    for client in clients.values():
        client.generate(Workload(work.batch, work.prompt, 1))
    memory = {name: footprint(client, work) for name, client in clients.items()}
    found, notes = saturate(clients, work, most or work.batch, rounds)
    return Session(work, found, memory, 3.0, notes)


def values(metrics: list[Metric]) -> dict[str, float]:
    return {metric.id.split("@")[0].removeprefix("generate."): metric.value for metric in metrics}
