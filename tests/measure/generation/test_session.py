"""Real processes and tiny models: what is measured, what ends in a sentence, and that the ids are transformers' own."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.data.pack import Pack
from bench.errors import DataError, LeanboardError
from bench.measure import generation, measure, memory
from bench.measure.generation import process_client
from bench.measure.generation.backend import Checkpoint, Workload, engine
from bench.measure.generation.in_process import InProcessClient
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.roofline import MachineProbe, least_seconds
from bench.measure.generation.timing import Local
from bench.measure.subject import Subject
from bench.shape import Shape
from tests.measure.generation.fakes import SPEC, TASK, WORK, values

pytestmark = pytest.mark.slow


def checkpoint(folder: Path, work: Workload = WORK) -> Checkpoint:
    return Checkpoint(folder, "float32", "cpu", work)


def test_prompts_are_the_same_each_time() -> None:
    ids = Workload(2, 64, 1).prompts(1000)
    assert ids == Workload(2, 64, 1).prompts(1000)
    assert [len(row) for row in ids] == [64, 64]
    assert ids[0] != ids[1]
    assert 0 <= min(map(min, ids)) < max(map(max, ids)) < 1000


@pytest.mark.parametrize("fixture", ["tiny_mha", "tiny_gqa"])
def test_ids_are_those_of_transformers_generate(fixture: str, request: pytest.FixtureRequest) -> None:
    work = Workload(2, 9, 12)
    backend: Any = engine("hf").load(checkpoint(request.getfixturevalue(fixture)))
    made = Local(backend).generate(work)
    prompt = torch.tensor(work.prompts(backend.vocab))
    theirs = backend.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert made.ids == theirs[:, 9:].tolist()
    assert len(made.stamps) == 13
    assert backend.passes >= 12


def test_the_transformers_backend_tells_its_cache(tiny_gqa: Path) -> None:
    backend: Any = engine("hf").load(checkpoint(tiny_gqa))
    assert backend.cached() == []
    Local(backend).generate(WORK)
    assert backend.cached() == [8, 8]
    config = backend.model.config
    numbers = 2 * 2 * 8 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert backend.cache_bytes() == 4 * numbers
    backend.clear()
    assert (backend.cached(), backend.cache_bytes()) == ([], 0)
    backend.decode = lambda: backend.clear() or backend.prefill([[1], [2]], 4)
    with pytest.raises(LeanboardError, match="holds 1, 1 tokens and not 6 of each of 2"):
        Local(backend).generate(WORK)


def test_a_real_measurement(tiny_mha: Path, tiny_gqa: Path) -> None:
    subject = Subject(tiny_gqa, dense=tiny_mha)
    parameters = sum(p.numel() for p in subject.model.parameters())
    seen: list[tuple[int, int]] = []
    result = measure(TASK, subject, Pack([]), lambda done, total: seen.append((done, total)))
    got, samples = values(result.metrics), result.evidence.samples
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {name: len(numbers) for name, numbers in samples.items()} == {
        "prefill": 4,
        "decode": 4,
        "cpu": 4,
        "dense_prefill": 4,
        "dense_decode": 4,
        "dense_cpu": 4,
        "step": 12,
    }
    assert all(min(numbers) > 0 for numbers in samples.values())
    ratios = sorted(
        (a + b) / (c + d)
        for a, b, c, d in zip(
            samples["dense_prefill"], samples["dense_decode"], samples["prefill"], samples["decode"], strict=True
        )
    )
    assert got["speedup"] == pytest.approx((ratios[1] + ratios[2]) / 2)
    shapes = [Shape.of(json.loads((f / "config.json").read_text())) for f in (tiny_mha, tiny_gqa)]
    machine = result.evidence.machine
    tried = MachineProbe(machine["bandwidth"], machine["rate"], 1, 1.0, [])
    least = [least_seconds(shape, WORK, "float32", tried) for shape in shapes]
    assert [machine["dense_least"], machine["least"]] == pytest.approx(least)
    assert got["roofline_speedup"] == pytest.approx(least[0] / least[1])
    assert machine["foreign_cores"] >= 0
    disturbed = result.evidence.disturbed
    assert [note for note in result.evidence.notes if note.startswith("disturbed")] == (
        [f"disturbed: {disturbed}"] if disturbed else []
    )
    assert got["cold_start_s"] > min(samples["prefill"])
    assert got["cache_memory"] > 0
    if memory._reset_high_water():
        assert got["peak_memory"] >= 4 * parameters + got["cache_memory"]
    assert "_loaded" not in vars(subject)


def test_without_a_dense_model_there_is_no_speed_up(tiny_gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "ProcessClient", InProcessClient)
    result = measure(TASK, Subject(tiny_gqa), Pack([]))
    assert not {name for name in values(result.metrics) if "speedup" in name}
    assert set(result.evidence.samples) == {"prefill", "decode", "cpu", "step"}
    assert {metric.n for metric in result.metrics} == {1, SPEC.rounds, SPEC.rounds * 3}


def test_errors_of_the_process_are_ours(tmp_path: Path, tiny_gqa: Path) -> None:
    with ProcessClient("hf") as client:
        with pytest.raises(DataError, match=r"config\.json"):
            client.load(checkpoint(tmp_path))
        client.load(checkpoint(tiny_gqa))  # it goes on
        assert process_client.KEEPS_FREED.items() <= psutil.Process(client.pid).environ().items()
        with pytest.raises(LeanboardError, match="TypeError"):
            client.ask("generate", work=asdict(WORK) | {"beam": 4})
        assert client.generate(WORK).tokens == 8
        client._process.kill()
        with pytest.raises(LeanboardError, match=r"died \(signal SIGKILL\)"):
            client.generate(WORK)


def test_an_engine_that_is_not_there_is_told() -> None:
    with ProcessClient("nothing") as client, pytest.raises(LeanboardError, match="No module named"):
        client.load(checkpoint(Path("nowhere")))


def test_want_of_memory_is_told_as_such() -> None:
    assert isinstance(process_client._error("OutOfMemoryError", "CUDA out of memory"), MemoryError)
    assert isinstance(process_client._error("MemoryError", "no"), MemoryError)
    assert type(process_client._error("SystemExit", "no")) is LeanboardError


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_passes_in_a_process_that_generates_reuse_their_memory() -> None:
    """Else one of two equal models is the slower by page faults, as what was freed before happens to lie."""
    script = """
import resource, torch
mlp = torch.nn.Sequential(torch.nn.Linear(64, 8192), torch.nn.SiLU(), torch.nn.Linear(8192, 64))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        mlp(torch.ones(2048, 64))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(*(faults() for _ in range(20)))
"""
    environment = os.environ | process_client.ENVIRONMENT
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    first, *later = map(int, done.stdout.split())
    assert first > 4000
    assert max(later[9:]) < first / 100
