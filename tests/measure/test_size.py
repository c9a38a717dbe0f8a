from pathlib import Path

import pytest
import torch

from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.measure import measure, size
from bench.measure.subject import Subject
from bench.model.checkpoint import sizes_of
from bench.model.layers import blocks_of, shape_of
from bench.model.surgery import prune
from bench.task import SizeTask, Task
from tests.tiny import make_model

TASK = Task(SizeTask(name="size", kind="size", description=""), "64")


def sizes(folder: Path) -> dict[str, float]:
    result = measure(TASK, Subject(folder), Pack([]))
    assert all(m.direction == "lower" and m.n == 1 for m in result.metrics)
    return {m.id: m.value for m in result.metrics}


@pytest.mark.parametrize("fixture", ["tiny_mha", "tiny_gqa"])
def test_sizes_are_those_of_the_checkpoint(fixture: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(fixture)
    got = sizes(folder)
    model = Subject(folder).model
    shape = shape_of(model)
    tied = fixture == "tiny_gqa"
    assert shape.tied == tied
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert got == {
        "params.stored": shape.params(),
        "params.nonzero": shape.params() - shape.hidden,  # the padding token's embedding is zero
        "params.body": shape.block_params() + shape.hidden,
        "bytes.disk": (folder / "model.safetensors").stat().st_size,
        "bytes.resident": 4 * shape.params() + buffers,
        "macs.total@64": shape.macs(64),
    }


def test_zeros_are_stored_but_not_counted() -> None:
    model = make_model()
    dense = sizes_of(model, Path())
    with torch.no_grad():
        blocks_of(model)[0].gate.weight[:3] = 0
    got = sizes_of(model, Path())
    assert got["params.stored"] == dense["params.stored"]
    assert got["params.nonzero"] == dense["params.nonzero"] - 3 * model.config.hidden_size


@pytest.mark.parametrize("seq_len", [7, 64])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_closed_form_is_what_runs(seq_len: int, kv_heads: int) -> None:
    model = make_model(kv_heads=kv_heads, tied=kv_heads == 2)
    assert size.counted_flops(model, seq_len) == 2 * shape_of(model).matmul_macs(seq_len)
    assert all(p.device.type == "cpu" for p in model.parameters())


def test_a_model_that_is_not_what_its_config_says_is_told() -> None:
    model = make_model()
    gate = blocks_of(model)[1].gate
    gate.weight = torch.nn.Parameter(torch.zeros(95, 64))
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(95, 64))
    model.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(torch.zeros(64, 95))
    with pytest.raises(LeanboardError, match="the widths in its config lead to"):
        size.macs(model, 64)


def test_pruned_models_count_exactly() -> None:
    from bench.shape import BlockKept, Kept

    model = make_model()
    kept = Kept({i: BlockKept((0, 2)[: 2 - i % 2], tuple(range(50 + i))) for i in range(4)})
    model = prune(model, kept)
    assert size.macs(model, 64) == shape_of(model).macs(64) == shape_of(make_model()).after(kept).macs(64)
