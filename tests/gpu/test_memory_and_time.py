"""What CUDA's allocator and events say: peaks by stage, what training takes, timing, and out of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from bench.blocks import train as training
from bench.blocks.recoveries import load_recovery, resolve_recovery
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.hf import load
from bench.measure.generation.in_process import InProcessClient
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.session import Candidate, play
from bench.measure.generation.timing import Local
from bench.measure.memory import peak_memory
from bench.method import Context, Example, Method, Target, Traits
from bench.model.load import load_folder
from bench.registry import load_registry
from bench.run.compress import Order, Stages, Texts, build
from bench.run.outcome import failure_of, status_of
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_checkpoint

SHAPES = {
    "cuda": {"hidden": 512, "channels": 1408, "heads": 8, "kv_heads": 8, "layers": 12},
    "cpu": {"hidden": 128, "channels": 256, "layers": 4},
}
SLACK = 40_000_000
"""Bytes of workspaces and of what a measurement itself takes."""


@pytest.fixture
def middle(tmp_path_factory: pytest.TempPathFactory, device: str) -> Path:
    """A model that is large enough for its memory and time to tell something of a GPU."""
    return make_checkpoint(tmp_path_factory.mktemp("middle"), **SHAPES[device])


def weights_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.mark.parametrize("method", ["magnitude", "llm_pruner"])
def test_peaks_are_measured_and_pruning_takes_a_third_more(
    middle: Path, tmp_path: Path, device: str, method: str
) -> None:
    cls = load_registry().method(method).cls
    texts = Texts(ids=token_ids(4, 32))
    order = Order(middle, cls(cls.Config()), None, Target(value=0.2), 0, "float32", device, texts, {})
    peaks = build(order, tmp_path / "out", Stages(device)).cost.peaks
    size = weights_of(middle)
    assert peaks.keys() == {"load", "compress", "recover", "finalize", "save", "reload"}
    assert peaks["load"] < 1.6 * size + SLACK
    if device == "cuda":  # a CPU's high-water mark holds what libraries map, too
        assert 0.95 * size < peaks["load"] <= max(peaks.values()) < 1.35 * size + SLACK, peaks


def test_training_takes_less_where_blocks_are_computed_again(
    middle: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = token_ids(4, 256).tolist()
    ctx = replace(make_context(examples=[Example(row, row) for row in rows]), device=torch.device(device))
    fields = {"name": "lora", "steps": 1, "batch_size": 4, "micro_batch": 4, "max_length": 256, "holdout": 0}
    recover = load_recovery(resolve_recovery(fields, "test") or {})
    assert training.recomputes(ctx.device) == (device == "cuda")
    found, peaks = [], []
    for again in (False, True):
        monkeypatch.setattr(training, "recomputes", lambda device, again=again: again)
        model = load_folder(middle, "float32", device)[0]
        with peak_memory(device) as peak:
            found.append(recover(model, ctx).get_output_embeddings().weight)
        peaks.append(peak.bytes or 0)
        del model
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    if device == "cuda":
        assert peaks[1] < 0.5 * peaks[0], peaks


def stopwatch(device: str) -> Callable[[], Callable[[], float]]:
    """Starts a clock of the device's own: CUDA's events. What it gives tells the seconds since."""

    def start() -> Callable[[], float]:
        if device == "cpu":
            began = time.perf_counter()
            return lambda: time.perf_counter() - began
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()

        def seconds() -> float:
            last.record()
            torch.cuda.synchronize()
            return float(first.elapsed_time(last)) / 1000

        return seconds

    return start


def test_what_is_timed_is_what_the_devices_own_events_say(middle: Path, device: str) -> None:
    work = Workload(4, 64, 16)
    backend: Any = load(Checkpoint(middle, "float32", device, work))
    client = Local(backend)
    for _ in range(3):
        client.generate(work)
    begin = stopwatch(device)
    seconds = begin()
    made = client.generate(work)
    assert made.total == pytest.approx(seconds(), rel=0.2)
    assert made.waited < 0.1 * made.total
    assert made.tokens == 4 * 16


def test_two_processes_take_turns_on_the_device(middle: Path, tmp_path: Path, device: str) -> None:
    smaller = make_checkpoint(tmp_path / "small", **SHAPES[device] | {"layers": 2})
    both = {name: Candidate(f, "float32", device) for name, f in (("dense", middle), ("measured", smaller))}
    kind = ProcessClient if device == "cuda" else InProcessClient
    found = play("hf", both, Workload(2, 16, 6), 2, kind=kind)
    assert {name: len(played) for name, played in found.rounds[2].items()} == {"dense": 2, "measured": 2}
    assert found.memory["measured"].weights == pytest.approx(weights_of(smaller), rel=0.01)
    assert found.least["measured"] < found.least["dense"]


class Greedy(Method):
    """Asks for more memory than there is."""

    name, version, traits = "greedy", "1", Traits(title="Greedy", track="control")

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        torch.empty(10**14, device=ctx.device)
        return model


def test_out_of_memory_is_recorded_as_such(middle: Path, tmp_path: Path, device: str) -> None:
    stages = Stages(device)
    order = Order(middle, Greedy(), None, None, 0, "float32", device, Texts(), {})
    with pytest.raises(RuntimeError) as caught:
        build(order, tmp_path / "out", stages)
    assert status_of(caught.value) == "oom"
    failure = failure_of(caught.value, stages.current)
    assert (failure.stage, failure.peak_memory_bytes is not None) == ("compress", True)
    assert torch.ones(1, device=device).item() == 1
