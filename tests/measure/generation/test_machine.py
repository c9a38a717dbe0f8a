"""What a machine can do, what disturbs it, and how fast a generation can be on it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.measure.generation import nvml, roofline, watch
from bench.measure.generation.backend import Workload
from bench.measure.generation.probe import probe
from bench.measure.generation.roofline import MachineProbe
from bench.measure.generation.watch import Reading, between
from bench.measure.subject import Subject
from bench.model.layers import shape_of
from bench.shape import BlockShape, Shape

SHAPE = Shape(hidden=64, head_dim=8, vocab=100, tied=True, blocks=(BlockShape(8, 2, 96), BlockShape(6, 3, 50)))
PROBE = MachineProbe(bandwidth=1e9, rate=1e9, threads=2, share=1.0, products=[])


def test_the_products_of_a_pass_are_those_that_run(tiny_gqa: Path) -> None:
    """Torch does not count the attention of a CPU, and elsewhere counts it whole, not causally."""
    model = Subject(tiny_gqa).model
    shape = shape_of(model)
    attention = 2 * shape.head_dim * sum(block.heads for block in shape.blocks)
    with torch.inference_mode():
        past = model(torch.ones(1, 7, dtype=torch.long), use_cache=True, logits_to_keep=1).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(torch.ones(1, 1, dtype=torch.long), past_key_values=past, use_cache=True, logits_to_keep=1)
    linear = counter.get_flop_counts()["Global"][torch.ops.aten.mm] // 2
    assert roofline.pass_macs(shape, 1, 7) == linear + 8 * attention
    whole = shape.matmul_macs(9) - 8 * shape.hidden * shape.vocab
    assert roofline.pass_macs(shape, 9) == whole - attention * 9 * 8 // 2


def test_a_pass_reads_every_weight_and_the_cache() -> None:
    assert roofline.pass_numbers(SHAPE, 1, 0) == SHAPE.params()
    assert roofline.pass_numbers(SHAPE, 3, 10) == SHAPE.params() + 3 * 10 * 2 * 8 * (2 + 3)


def test_the_roofline_is_the_slower_of_reading_and_multiplying() -> None:
    work = Workload(2, 16, 3)
    slow_memory = MachineProbe(1e6, 1e15, 1, None, [])
    read = sum(roofline.pass_numbers(SHAPE, 2, seen) for seen in (16, 17, 18))
    assert roofline.least_seconds(SHAPE, work, "float16", slow_memory) == pytest.approx(2 * read / 1e6)
    slow_rate = MachineProbe(1e15, 1e6, 1, None, [])
    macs = sum(2 * roofline.pass_macs(SHAPE, *of) for of in ((16, 0), (1, 16), (1, 17)))
    assert roofline.least_seconds(SHAPE, work, "float16", slow_rate) == pytest.approx(macs / 1e6)


def test_odd_widths_are_told_with_their_cost() -> None:
    assert roofline.odd_width(SHAPE, "cpu") == (50, 48, 1)
    assert roofline.odd_width(Shape(64, 8, 100, True, (BlockShape(8, 2, 96),)), "cpu") is None
    assert roofline.odd_width(Shape(64, 8, 100, True, (BlockShape(8, 2, 96),)), "cuda:0") == (96, 64, 1)
    note = roofline.odd_width_note((50, 48, 1), 2, [3.0, 2.0])
    assert "1 of 2 blocks are no multiple of 8" in note
    assert "width 50 takes 1.50 times as long as one of 48 (1.04 by its size)" in note


def test_the_probe_of_this_machine_is_plausible() -> None:
    tried = probe("float32", "cpu", 64, [96, 50], 1)
    assert 1e8 < tried.bandwidth < 1e13
    assert 1e8 < tried.rate < 1e14
    assert tried.threads == torch.get_num_threads()
    assert 0 < tried.share <= 1.1
    assert len(tried.products) == 2
    assert min(tried.products) > 0


@pytest.mark.parametrize(
    ("found", "tried", "cores", "reason"),
    [
        ({}, {}, 2, None),
        ({"foreign": 0.15}, {}, 2, None),
        ({"foreign": 0.5}, {}, 2, "others used 0.5 of 2 cores"),
        ({"foreign": 0.5}, {}, 8, None),
        ({"foreign": 7.0}, {}, 8, "others used 7.0 of 8 cores"),
        ({}, {"share": 0.6}, 2, "each compute thread had 60% of a core"),
        ({}, {"share": None}, 2, None),
        ({"swapped": 5 * 2**20}, {}, 2, "the machine swapped 5 MiB"),
        ({"others": 1}, {}, 2, "foreign processes on the GPU: 1"),
        ({"foreign": 2.0, "others": 2}, {}, 2, "others used 2.0 of 2 cores; foreign processes on the GPU: 2"),
    ],
)
def test_what_disturbs_is_told(found: dict, tried: dict, cores: int, reason: str | None) -> None:
    seen = watch.Watch(**{"foreign": 0.0, "swapped": 0} | found)
    assert seen.disturbance(MachineProbe(**vars(PROBE) | tried), cores) == reason


def test_foreign_is_what_is_busy_and_not_ours() -> None:
    seen = between(Reading(10.0, 100.0, 50.0, 7), Reading(14.0, 107.0, 54.0, 9))
    assert (seen.foreign, seen.swapped) == (0.75, 2)
    assert between(Reading(0, 0, 0, 0), Reading(1, 1.0, 1.5, 0)).foreign == 0


def test_our_own_work_is_not_foreign() -> None:
    before = watch.read([])
    while watch.read([]).own < before.own + 0.3:
        sum(range(10**5))
    after = watch.read([])
    assert after.own - before.own >= 0.29  # counted in hundredths of a second
    assert after.busy - before.busy >= 0.2


class Counted:
    """nvidia-ml-py, as much of it as is used."""

    class NVMLError(Exception):
        pass

    millijoules = 5000
    nvmlInit = staticmethod(lambda: None)
    nvmlDeviceGetHandleByUUID = staticmethod(lambda uuid: uuid)
    nvmlDeviceGetComputeRunningProcesses = staticmethod(lambda handle: [SimpleNamespace(pid=3), SimpleNamespace(pid=9)])

    @classmethod
    def nvmlDeviceGetTotalEnergyConsumption(cls, handle: str) -> int:
        assert handle == "GPU-abc"
        if cls.millijoules < 0:
            raise cls.NVMLError("Not Supported")
        return cls.millijoules


def test_energy_comes_from_the_counter_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvml.gpu_of("cpu") is None
    assert nvml.counter_of(None)() is None
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="abc"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.gpu_of("cuda:0") is None  # not installed
    monkeypatch.setitem(sys.modules, "pynvml", Counted)
    gpu = nvml.gpu_of("cuda:0")
    assert nvml.counter_of(gpu)() == 5.0
    assert gpu.processes() == [3, 9]
    monkeypatch.setattr(Counted, "millijoules", -1)
    assert nvml.counter_of(gpu)() is None


def test_foreign_processes_are_told_apart_where_ours_are_seen() -> None:
    assert nvml.foreign([3, 9, 11], {1, 3, 11}) == 1
    assert nvml.foreign([3], {1, 3}) == 0
    assert nvml.foreign([70_001], {1, 3}) is None
    assert nvml.foreign([], {1, 3}) is None
