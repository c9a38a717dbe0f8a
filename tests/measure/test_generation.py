from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.measure import generation, measure, memory
from bench.measure.generation import Stopwatch, Timing, Workload
from bench.measure.subject import Subject
from bench.task import GenerationTask, Task

VOCAB = 50
SPEC = GenerationTask(name="generate", kind="generation", description="", protocols=("hf/b2/p5/n4",), rounds=4)
TASK = Task(SPEC, "hf/b2/p5/n4")


class Device:
    """A fake accelerator: work is queued when a model is called and takes time only when the device is waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queued = 0.0
        self.watch = Stopwatch(lambda: self.now, self.sync)

    def sync(self) -> None:
        self.now += self.queued
        self.queued = 0.0


@dataclass
class Cache:
    length: int

    def get_seq_length(self) -> int:
        return self.length


@dataclass
class Model:
    """A fake decoder: `seconds` a position of each sequence; it notes what each call is given."""

    device: Device
    name: str = "model"
    seconds: float = 1.0
    keeps_cache: bool = True
    slow_first: float = 0.0
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __call__(self, input_ids: torch.Tensor, past_key_values: Cache | None = None, **_: object) -> SimpleNamespace:
        batch, length = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values else 0
        if past == 0:
            self.log.append(self.name)
        self.device.queued += self.seconds * batch * length + (self.slow_first if not self.calls else 0)
        self.calls.append((batch, past, length))
        return SimpleNamespace(
            logits=torch.zeros(batch, 1, VOCAB), past_key_values=Cache(past + length if self.keeps_cache else length)
        )


def prompt_ids() -> torch.Tensor:
    return Workload(2, 5, 4).prompt_ids(VOCAB)


def test_step_n_sees_the_cache_of_all_before_it() -> None:
    device = Device()
    model = Model(device)
    ids, _ = generation.generate(model, prompt_ids(), 4, device.watch)
    assert model.calls == [(2, 0, 5), (2, 5, 1), (2, 6, 1), (2, 7, 1)]
    assert ids.shape == (2, 4)


def test_decoding_without_a_cache_is_caught() -> None:
    device = Device()
    with pytest.raises(LeanboardError, match="cache holds 1 tokens after generation instead of 8"):
        generation.generate(Model(device, keeps_cache=False), prompt_ids(), 4, device.watch)


def test_prefill_and_decoding_are_apart_and_the_device_is_waited_for() -> None:
    device = Device()
    _, timing = generation.generate(Model(device), prompt_ids(), 4, device.watch)
    assert timing == Timing(prefill=10, decode=6)  # 2 sequences of 5 tokens; 3 steps of 2
    forgetful = Stopwatch(lambda: device.now, lambda: None)
    _, timing = generation.generate(Model(device), prompt_ids(), 4, forgetful)
    assert timing == Timing(0, 0)  # without the wait the fake clock sees nothing: the line above is what catches it


def test_rounds_alternate_and_each_times_one_generation() -> None:
    device, log = Device(), []
    dense, subject = (Model(device, name, seconds, log=log) for name, seconds in (("A", 2.0), ("B", 1.0)))
    seen: list[tuple[int, int]] = []
    timings, notes = generation.alternate(
        {"dense": dense, "measured": subject}, prompt_ids(), 4, 4, device.watch,
        lambda done, total: seen.append((done, total)),
    )
    assert notes == []
    assert "".join(log) == "AAABBB" + "ABBAABBA"
    assert timings == {"dense": [Timing(20, 12)] * 4, "measured": [Timing(10, 6)] * 4}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_slow_first_generation_stays_in_the_warm_up() -> None:
    device = Device()
    dense, subject = Model(device), Model(device, slow_first=1000.0)
    models = {"dense": dense, "measured": subject}
    timings, notes = generation.alternate(models, prompt_ids(), 4, 2, device.watch)
    assert timings["measured"] == [Timing(10, 6)] * 2
    assert subject.log == ["model"] * (4 + 2)
    assert notes == []


def test_a_machine_that_never_settles_is_noted() -> None:
    device = Device()
    dense = Model(device)
    times = iter(range(1, 100_000))
    restless = Stopwatch(lambda: next(times) ** 2, device.sync)
    models = {"dense": dense, "measured": Model(device)}
    _, notes = generation.alternate(models, prompt_ids(), 4, 2, restless)
    assert [note.split(" did")[0] for note in notes] == ["warm-up of the dense model", "warm-up of the measured model"]
    assert len(dense.log) == generation.WARM_UP_MOST + 2


def test_metrics_count_each_sequence_once() -> None:
    work = Workload.parse("hf/b2/p5/n4")
    metrics = generation.speed_metrics(TASK, work, [Timing(10, 6)] * 4, [Timing(20, 12)] * 4)
    got = {m.id: (m.value, m.unit, m.direction, m.n) for m in metrics}
    assert got == {
        "generate.tokens_per_s@hf/b2/p5/n4": (8 / 16, "tokens/s", "higher", 4),
        "generate.prefill_ms@hf/b2/p5/n4": (10_000, "ms", "lower", 4),
        "generate.decode_ms@hf/b2/p5/n4": (2_000, "ms", "lower", 4),
        "generate.speedup@hf/b2/p5/n4": (2.0, "ratio", "higher", 4),
    }


def test_drift_cancels_in_the_ratio_of_a_round() -> None:
    dense = [Timing(2.0 * drift, 0) for drift in (1, 2, 4, 8)]
    subject = [Timing(1.0 * drift, 0) for drift in (1, 2, 4, 8)]
    speedup = generation.speed_metrics(TASK, Workload(1, 1, 1), subject, dense)[-1]
    assert (speedup.value, speedup.interval) == (2.0, (2.0, 2.0))


def test_the_interval_holds_the_median_and_never_changes() -> None:
    values = [1.0, 1.1, 0.9, 1.3, 1.2, 1.05]
    low, high = generation.bootstrap_median(values)
    assert min(values) <= low < 1.075 < high <= max(values)
    assert generation.bootstrap_median(values) == (low, high)


def test_prompts_are_the_same_each_time() -> None:
    ids = Workload(2, 64, 1).prompt_ids(1000)
    assert torch.equal(ids, Workload(2, 64, 1).prompt_ids(1000))
    assert ids.shape == (2, 64)
    assert 0 <= int(ids.min()) < int(ids.max()) < 1000


@pytest.mark.parametrize("fixture", ["tiny_mha", "tiny_gqa"])
def test_ids_are_those_of_transformers_generate(fixture: str, request: pytest.FixtureRequest) -> None:
    model = Subject(request.getfixturevalue(fixture)).model
    prompt = Workload(2, 9, 1).prompt_ids(300)
    ids, _ = generation.generate(model, prompt, 12, Device().watch)
    theirs = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(ids, theirs[:, 9:])


def test_a_real_measurement(tiny_mha: Path, tiny_gqa: Path) -> None:
    result = measure(TASK, Subject(tiny_gqa, dense=tiny_mha), Pack([]))
    values = {m.id.split("@")[0].removeprefix("generate."): m.value for m in result.metrics}
    samples = result.evidence.samples
    assert set(samples) == {"prefill", "decode", "dense_prefill", "dense_decode"}
    assert all(len(s) == SPEC.rounds and min(s) > 0 for s in samples.values())
    ratios = sorted(
        (a + b) / (c + d)
        for a, b, c, d in zip(
            samples["dense_prefill"], samples["dense_decode"], samples["prefill"], samples["decode"], strict=True
        )
    )
    assert values["speedup"] == pytest.approx((ratios[1] + ratios[2]) / 2)
    assert values["tokens_per_s"] > 0
    if memory._reset_high_water():
        assert values["peak_memory"] >= 4 * sum(p.numel() for p in Subject(tiny_gqa).model.parameters())


def test_memory_that_cannot_be_measured_is_left_out_with_a_note(
    tiny_mha: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
    result = measure(TASK, Subject(tiny_mha), Pack([]))
    assert "generate.peak_memory@hf/b2/p5/n4" not in {m.id for m in result.metrics}
    assert any("peak memory not measured" in note for note in result.evidence.notes)


def test_without_a_dense_model_there_is_no_speed_up(tiny_gqa: Path) -> None:
    result = measure(TASK, Subject(tiny_gqa), Pack([]))
    assert "generate.speedup@hf/b2/p5/n4" not in {m.id for m in result.metrics}
    assert set(result.evidence.samples) == {"prefill", "decode"}
