"""What is played when, and how it is timed, on the fake machine."""

from typing import Any

import pytest

from bench.measure.generation import rounds
from bench.measure.generation.backend import Workload
from bench.measure.generation.metrics import metrics_of, samples_of
from bench.measure.generation.timing import Local
from tests.measure.generation.fakes import LAUNCH, TASK, WORK, Fake, Machine, local, session, values


def test_every_pass_is_stamped_when_the_device_is_done() -> None:
    machine = Machine()
    made = local(Fake(machine)).generate(WORK)
    assert made.stamps == pytest.approx([0, 10.001, 12.002, 14.003, 16.004])
    assert (made.first, made.decoding, made.total) == pytest.approx((10.001, 6.003, 16.004))
    assert made.steps == pytest.approx([2.001] * 3)
    assert (made.tokens, made.waited) == (8, 0)


def test_rounds_alternate_and_each_times_one_generation() -> None:
    machine = Machine()
    clients = {"dense": local(Fake(machine, 2.0, "A")), "measured": local(Fake(machine, 1.0, "B"))}
    seen: list[tuple[int, int]] = []
    found, notes = rounds.alternate(clients, WORK, 4, lambda done, total: seen.append((done, total)))
    assert notes == []
    assert machine.log == "BBBBAAAA" + "ABBAABBA"
    assert [g.total for g in found["dense"]] == pytest.approx([32 + 4 * LAUNCH] * 4)
    assert [g.total for g in found["measured"]] == pytest.approx([16 + 4 * LAUNCH] * 4)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_machine_that_never_settles_is_noted() -> None:
    class Slowing(Fake):
        def clear(self) -> None:
            super().clear()
            self.seconds *= 1.1

    machine = Machine()
    _, notes = rounds.alternate({"measured": local(Slowing(machine))}, WORK, 2)
    assert notes == ["warm-up of the measured model did not settle within 5 tries"]
    assert machine.log == "m" * (1 + rounds.WARM_UP_MOST + 2)


def test_percentiles_only_where_so_many_steps_can_tell_them() -> None:
    few = values(metrics_of(TASK, session(Fake(Machine()), rounds=6)))
    assert {name for name in few if name.startswith("itl")} == {"itl_ms"}
    many = values(metrics_of(TASK, session(Fake(Machine()), rounds=7)))
    assert {name for name in many if name.startswith("itl")} == {"itl_ms", "itl_p95_ms"}
    most = values(metrics_of(TASK, session(Fake(Machine()), rounds=34)))
    assert {name for name in most if name.startswith("itl")} == {"itl_ms", "itl_p95_ms", "itl_p99_ms"}


def test_one_new_token_is_a_prefill_alone() -> None:
    work = Workload(2, 5, 1)
    machine = Machine()
    found = session(Fake(machine), Fake(machine, 2.0), work=work)
    got = values(metrics_of(TASK, found))
    assert {"decode_tokens_per_s", "decode_speedup", "itl_ms"} & got.keys() == set()
    assert got["speedup"] == got["prefill_speedup"]
    assert samples_of(found)["decode"] == [0.0] * 4


def test_energy_is_that_of_the_counter_or_missing() -> None:
    machine = Machine()
    counted = Local(Fake(machine), lambda: machine.now, lambda: 0.0, lambda: 5 * machine.now)
    found = session(Fake(Machine()))
    assert "energy_per_token" not in values(metrics_of(TASK, found))
    found.rounds[2]["measured"] = rounds.alternate({"m": counted}, WORK, 3)[0]["m"]
    assert values(metrics_of(TASK, found))["energy_per_token"] == pytest.approx(5 * 16.004 / 8)


def test_a_sweep_goes_on_until_no_model_gains() -> None:
    """Up to 4 sequences cost as much as one; from there on each costs its share."""

    class Wide(Fake):
        def forward(self, batch: int, length: int) -> Any:
            self.seconds, seconds = self.seconds * max(1.0, batch / 4) / batch, self.seconds
            try:
                return super().forward(batch, length)
            finally:
                self.seconds = seconds

    machine = Machine()
    clients = {"dense": Wide(machine, 2.0), "measured": Wide(machine, 1.0)}
    seen: list[tuple[int, int]] = []
    found, notes = rounds.saturate(
        {name: local(fake) for name, fake in clients.items()},
        Workload(1, 5, 4),
        64,
        2,
        lambda done, total: seen.append((done, total)),
    )
    assert (list(found), notes) == ([1, 2, 4, 8], [])
    assert seen == [(i, 14) for i in range(1, 9)]
    swept = session(clients["measured"], clients["dense"], work=Workload(1, 5, 4), most=4)
    got = values(metrics_of(TASK, swept))
    assert got == {
        "tokens_per_s": pytest.approx(16 / 8, rel=0.01),
        "best_batch": 4,
        "speedup": pytest.approx(2, rel=0.01),
    }
    assert {f"{name}@b{batch}" for name in ("step", "decode", "dense_prefill") for batch in (1, 2, 4)} < set(
        samples_of(swept)
    )


def test_a_sweep_is_bounded() -> None:
    clients = {"measured": local(Fake(Machine(), 0.0))}
    assert list(rounds.saturate(clients, Workload(1, 5, 4), 6, 2)[0]) == [1, 2, 4]
