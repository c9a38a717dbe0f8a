"""Two models that memory does not hold together: one process at a time, and the same rounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.measure.generation import rounds, session, turns
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.in_process import InProcessClient
from bench.measure.generation.metrics import metrics_of
from bench.measure.generation.turns import Seat, TurnClient, fit_together
from bench.shape import BlockShape, Shape
from tests.measure.generation.fakes import TASK, WORK, Fake, Machine, local, values

LLAMA = Shape(hidden=4096, head_dim=128, vocab=32000, tied=False, blocks=(BlockShape(32, 32, 11008),) * 32)
HALF = replace(LLAMA, blocks=(BlockShape(16, 16, 5504),) * 32)
SERVED = Workload(1, 64, 128)


def bfloat16(work: Workload = SERVED) -> Checkpoint:
    return Checkpoint(Path("somewhere"), "bfloat16", "cuda", work)


def test_two_llamas_of_7b_do_not_fit_into_24_gb_and_one_with_its_half_does() -> None:
    assert LLAMA.params() == 6_738_415_616
    assert not fit_together([(bfloat16(), LLAMA), (bfloat16(), LLAMA)], 24 * 10**9)
    assert fit_together([(bfloat16(), LLAMA), (bfloat16(), HALF)], 24 * 10**9)
    assert fit_together([(bfloat16(), LLAMA), (bfloat16(), LLAMA)], 32 * 10**9)


def test_the_cache_counts() -> None:
    many = bfloat16(Workload(8, 512, 128))
    cache = 8 * 640 * 2 * 4096 * 32 * 2
    more = turns._need(many, LLAMA) - turns._need(bfloat16(), LLAMA)
    assert cache * 0.95 < more < cache * 1.5


class FakeProcess:
    """A `ProcessClient` whose process is a fake model; `alive` are those that have not ended."""

    machine = Machine()
    alive: list[str] = []
    most = 0

    def __init__(self, backend: str) -> None:
        self.started = self.machine.now

    def load(self, checkpoint: Checkpoint) -> None:
        self.name = str(checkpoint.folder)
        self.alive.append(self.name)
        FakeProcess.most = max(FakeProcess.most, len(self.alive))
        self.generate = local(Fake(self.machine, name=self.name)).generate

    def end(self) -> None:
        self.alive.remove(self.name)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    for name, value in {"machine": Machine(), "alive": [], "most": 0}.items():
        monkeypatch.setattr(FakeProcess, name, value)
    return FakeProcess


def test_a_turn_ends_the_other_process_loads_and_warms_up(fakes: type[FakeProcess]) -> None:
    seat = Seat(lambda: fakes("hf"))  # type: ignore[arg-type,return-value]
    clients = {name: TurnClient(seat) for name in "AB"}
    for name, client in clients.items():
        client.load(Checkpoint(Path(name), "float32", "cpu", WORK))
    found, notes = rounds.alternate(clients, WORK, 4)
    assert notes == []
    assert fakes.most == 1
    warm, turn = 4, "AAAAA"
    assert fakes.machine.log == "B" * warm + "A" * 2 * warm + "A" + "BBBBB" + "B" + turn + "A" + "BBBBB" + "B" + turn
    assert [len(found[name]) for name in "AB"] == [4, 4]
    assert seat.loads == 2 + 1 + 4
    clients["A"].end()
    clients["B"].end()
    assert fakes.alive == []


def test_a_real_measurement_in_turns(tiny_mha: Path, tiny_gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[Any] = []
    most = 0

    class Counted(InProcessClient):
        def __init__(self, backend: str) -> None:
            nonlocal most
            super().__init__(backend)
            alive.append(self)
            most = max(most, len(alive))

        def end(self) -> None:
            super().end()
            alive.remove(self)

    monkeypatch.setattr(session, "free_memory", lambda device: 0)
    both = {"dense": session.Candidate(tiny_mha, "float32", "cpu")}
    both["measured"] = session.Candidate(tiny_gqa, "float32", "cpu")
    found = session.play("hf", both, WORK, 2, kind=Counted)
    assert (most, alive) == (1, [])
    assert found.machine["loads"] == 5
    assert [note for note in found.notes if note.startswith("in turns: ")] == [
        "in turns: memory holds one of the models at a time, so they were loaded 5 times"
    ]
    got = values(metrics_of(TASK, found))
    assert got["speedup"] > 0
    assert {name: len(played) for name, played in found.rounds[WORK.batch].items()} == {"dense": 2, "measured": 2}
    assert found.machine["foreign_cores"] >= 0
    weights = {name: 4 * candidate.shape.params() for name, candidate in both.items()}
    assert {name: memory.weights for name, memory in found.memory.items()} == pytest.approx(weights, rel=1e-3)


def test_a_model_that_is_spread_over_devices_is_noted(tiny_mha: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure.generation.worker.Stage.spread", lambda stage: "its blocks are spread: 1 on x")
    one = {"measured": session.Candidate(tiny_mha, "float32", "cpu")}
    notes = session.play("hf", one, WORK, 2, kind=InProcessClient).notes
    assert "measured model: its blocks are spread: 1 on x, which takes time" in notes


def test_where_both_fit_no_turn_is_taken(tiny_mha: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {name: session.Candidate(tiny_mha, "float32", "cpu") for name in ("dense", "measured")}
    loaded = {name: candidate.checkpoint(WORK) for name, candidate in both.items()}
    assert session._all_fit(both, loaded)
    monkeypatch.setattr(session, "free_memory", lambda device: 10**9)
    assert not session._all_fit(both, loaded)
    one = {"measured": both["measured"]}
    assert session._all_fit(one, loaded)
