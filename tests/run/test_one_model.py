"""One model at a time is in memory: what a method replaced goes before recovery, what was saved before the reload."""

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from bench.data.pack import Pack
from bench.measure import continuations, measure, memory
from bench.measure.subject import Subject
from bench.method import Context, Method, Traits
from bench.model.checkpoint import load_checkpoint
from bench.run import compress
from bench.run.compress import Order, Stages, Texts
from bench.task import ContinuationTask, Task


class Another(Method):
    """Puts another model in the place of the one it is given; a cycle holds each."""

    name, version, traits = "another", "1", Traits(title="Another", track="control")

    def __init__(self) -> None:
        super().__init__()
        self.given: weakref.ref[Any] | None = None
        self.made: weakref.ref[Any] | None = None

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        self.given = weakref.ref(model)
        made = copy.deepcopy(model)
        made.itself = [made]
        self.made = weakref.ref(made)
        return made

    def recover(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        gc.collect()
        assert self.given is not None
        assert self.given() is None
        return model


def test_what_a_method_replaced_and_what_was_saved_are_gone(
    tiny_mha: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Another()
    there: list[Any] = []

    def reload(*args: Any) -> Any:
        assert method.made is not None
        there.append(method.made())
        return load_checkpoint(*args)

    monkeypatch.setattr(compress, "load_checkpoint", reload)
    order = Order(tiny_mha, method, None, None, 0, "float32", "cpu", Texts(), {})
    compress.build(order, tmp_path / "out", Stages("cpu"))
    assert there == [None]


def test_on_a_gpu_garbage_is_given_back_before_a_stage_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    calls: list[str] = []
    monkeypatch.setattr(memory, "give_back", calls.append)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7)
    assert memory.CudaMeter("cuda").reset() == 7
    assert calls == ["cuda"]


def test_continuations_hold_one_model_at_a_time(
    tiny_mha: Path, tiny_gqa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[bool]] = []
    subject = Subject(tiny_gqa, dense=tiny_mha)
    continued = continuations.continued

    def watched(asked: Subject, *args: Any) -> Any:
        held.append(["_loaded" in vars(subject), asked is subject])
        return continued(asked, *args)

    monkeypatch.setattr(continuations, "continued", watched)
    spec = ContinuationTask(name="continuations", kind="continuation", description="", beginnings=("A fox",))
    measure(Task(spec, "n4"), subject, Pack([]))
    assert held == [[False, True], [False, False]]
