"""The GPU's numbers are the CPU's: perplexity, accuracy, what is pruned, what is trained, in float32 and bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from bench.blocks.groups import kept_of, shape_of
from bench.measure.generation.backend import Workload
from bench.measure.generation.hf import Transformers
from bench.measure.perplexity import window_losses
from bench.method import Target
from bench.model.load import load_folder
from bench.registry import load_registry
from bench.run.compress import Order, Stages, Texts, build
from tests.blocks.context import token_ids
from tests.devices.test_mixing import CASES, EXAMPLES, answers, compressed, recovered, settings
from tests.tiny import make_checkpoint

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
ON_CPU = ("llm_pruner", "compresso", "lora", "trawl")
EVERY = [pytest.param("cuda", *case, marks=pytest.mark.gpu) for case in CASES]
EVERY += [pytest.param("cpu", name, {}, marks=pytest.mark.slow) for name in ON_CPU]
"""The CPU tries this test on a few methods; `tests/devices` has all of them on a pretended device."""
KEPT_ALIKE = 0.98
"""The least share of heads and channels that both keep: scores that are nearly equal may change places."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), kv_heads=2, hidden=64, channels=128)


def loaded(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    return load_folder(folder, dtype, device)[0]


def kept_alike(one: PreTrainedModel, other: PreTrainedModel) -> float:
    """The share of the heads, channels and dimensions of either that both keep."""
    sets = []
    for model in (one, other):
        kept = kept_of(model)
        units = {("hidden", 0, i) for i in kept.hidden or ()}
        for index, block in kept.blocks.items():
            units |= {("head", index, i) for i in block.heads} | {("channel", index, i) for i in block.channels}
        sets.append(units)
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def difference(one: PreTrainedModel, other: PreTrainedModel) -> float:
    """The norm of the difference of logits over that of the logits."""
    ids = token_ids(2, 24)
    with torch.no_grad():
        a, b = (model(ids.to(model.device), use_cache=False).logits.float().cpu() for model in (one, other))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_perplexity(folder: Path, device: str, dtype: str) -> None:
    there, here = (window_losses(loaded(folder, dtype, where), token_ids(4, 128)) for where in (device, "cpu"))
    assert there == pytest.approx(here, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("examples", ["", EXAMPLES], ids=["0shot", "5shot"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_accuracy(folder: Path, device: str, dtype: str, examples: str) -> None:
    there, here = (answers(loaded(folder, dtype, where), examples) for where in (device, "cpu"))
    assert [logp for logp, _ in there] == pytest.approx([logp for logp, _ in here], rel=TOLERANCE[dtype])


def test_greedy_tokens(folder: Path, device: str) -> None:
    work = Workload(2, 16, 8)
    made = []
    for where in (device, "cpu"):
        backend = Transformers(loaded(folder, "float32", where))
        passes = [backend.prefill(work.prompts(backend.vocab), work.new)]
        passes += [backend.decode() for _ in range(work.new - 1)]
        made.append(backend.ids(passes))
    assert made[0] == made[1]


@pytest.mark.parametrize(("device", "name", "config"), EVERY, ids=str, indirect=["device"])
def test_methods(folder: Path, device: str, name: str, config: dict[str, Any]) -> None:
    there, here = (compressed(loaded(folder, "float32", where), name, config) for where in (device, "cpu"))
    assert {weight.device.type for weight in there.parameters()} == {device}
    assert kept_alike(there, here) >= KEPT_ALIKE
    if kept_alike(there, here) == 1:
        assert shape_of(there) == shape_of(here)
        assert difference(there, here) < 0.02


@pytest.mark.parametrize("name", ["lora", "grouped"])
def test_recoveries(folder: Path, device: str, name: str) -> None:
    there, here = (recovered(loaded(folder, "float32", where), name) for where in (device, "cpu"))
    assert {weight.device.type for weight in there.parameters()} == {device}
    assert difference(there, here) < 0.02


@pytest.mark.parametrize("method", ["magnitude", "llm_pruner", "compresso", "pruning_adapter"])
def test_a_bfloat16_checkpoint_is_made_saved_and_loaded(folder: Path, tmp_path: Path, device: str, method: str) -> None:
    cls = load_registry().method(method).cls
    texts, stages = Texts(ids=token_ids(8, 24)), Stages(device)
    order = Order(folder, cls(settings(cls, {})), None, Target(value=0.2), 0, "bfloat16", device, texts, {})
    built = build(order, tmp_path / "out", stages)
    model, _ = built.loaded
    assert {(weight.device.type, weight.dtype) for weight in model.parameters()} == {(device, torch.bfloat16)}
    assert difference(model, loaded(tmp_path / "out", "bfloat16", "cpu")) < TOLERANCE["bfloat16"]
