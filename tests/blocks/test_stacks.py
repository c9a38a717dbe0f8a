"""Stacks: what goes in comes out, bit for bit, and slices are what they are said to be."""

from typing import Any

import pytest
import torch

from bench.blocks.groups import Kept, blocks_of, prune, shape_of
from bench.blocks.stacks import dims, matrices, single_stack, stack, stacks_of, unstack
from bench.errors import MethodError
from bench.shape import BlockKept, BlockShape, Shape
from tests.tiny import make_model

SHAPES: dict[str, dict[str, Any]] = {
    "mha": {},
    "gqa": {"heads": 8, "kv_heads": 4},
    "gqa-3": {"heads": 6, "kv_heads": 2, "hidden": 96},
    "mqa": {"kv_heads": 1},
}

ATTENTION_SETS = ["split", "kv_group", "repeat", "faithful"]
CASES = [(mode, name) for mode in (1, 2, 3) for name in ATTENTION_SETS] + [(mode, "split") for mode in (4, 5, 6)]


@pytest.mark.parametrize(("mode", "attention_set"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_round_trip_is_exact(mode: Any, attention_set: Any, shape: str) -> None:
    model = make_model(layers=4, **SHAPES[shape])
    if attention_set == "faithful" and shape != "mha":
        with pytest.raises(MethodError, match="'faithful' needs square matrices"):
            stacks_of(shape_of(model), mode, range(4), attention_set=attention_set)
        return
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    units = stacks_of(shape_of(model), mode, range(4), attention_set=attention_set)
    assert len(units) == {1: 1, 2: 4, 3: 3, 4: 1, 5: 4, 6: 3}[mode]
    seen = 0
    for one in (s for unit in units for s in unit):
        x = stack(model, one)
        assert tuple(x.shape) == dims(shape_of(model), one)
        for weight in matrices(model, one):
            weight.data.zero_()
        unstack(model, one, x)
        seen += len(one.slices)
    assert seen == 4 * (4 if mode <= 3 else 3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_modes_have_the_numbers_of_slices_of_the_paper() -> None:
    shape = Shape(64, 16, 300, False, (BlockShape(4, 4, 96),) * 28)

    def slices(mode: Any, **how: Any) -> list[int]:
        return [sum(dims(shape, s)[0] for s in unit) for unit in stacks_of(shape, mode, range(28), **how)]

    assert slices(1, attention_set="faithful") == [4 * 28]
    assert slices(2) == [4] * 28
    assert slices(3) == [40, 36, 36]
    assert slices(4, mlp_set="ud") == [2 * 28]
    assert slices(5, mlp_set="ud") == [2] * 28
    assert slices(6, mlp_set="ud") == [20, 18, 18]
    assert slices(5) == [3] * 28


def test_mlp_slices_have_a_channel_in_each_row() -> None:
    model = make_model()
    block = blocks_of(model)[1]
    x = stack(model, stacks_of(shape_of(model), 5, [1])[0][0])
    assert torch.equal(x[0], block.gate.weight)
    assert torch.equal(x[1], block.up.weight)
    assert torch.equal(x[2], block.down.weight.T)


def test_grouped_slices_have_the_heads_of_a_key_value_head_in_the_same_rows() -> None:
    model = make_model(heads=6, kv_heads=2, hidden=96)
    block, h = blocks_of(model)[0], shape_of(model).head_dim
    ((one,),) = stacks_of(shape_of(model), 2, [0], attention_set="kv_group")
    x = stack(model, one)
    assert x.shape == (3 + 1 + 1 + 3, 2 * h, 96)
    for group in range(2):
        rows = slice(group * h, (group + 1) * h)
        assert torch.equal(x[3, rows], block.k.weight[rows])
        for j in range(3):
            head = slice((3 * group + j) * h, (3 * group + j + 1) * h)
            assert torch.equal(x[j, rows], block.q.weight[head])
            assert torch.equal(x[5 + j, rows], block.o.weight[:, head].T)


def test_repeated_heads_keep_their_norm_and_are_averaged() -> None:
    model = make_model(heads=6, kv_heads=2, hidden=96)
    block = blocks_of(model)[0]
    ((one,),) = stacks_of(shape_of(model), 2, [0], attention_set="repeat")
    x = stack(model, one)
    assert x.shape == (4, 96, 96)
    torch.testing.assert_close(x[1].norm().float(), block.k.weight.norm())
    h = shape_of(model).head_dim
    torch.testing.assert_close(x[2, h : 2 * h].float() * 3**0.5, block.v.weight[:h])
    key = block.k.weight.clone()
    x[1, :h] += 0.3  # one of the three copies of the first head
    unstack(model, one, x)
    torch.testing.assert_close(block.k.weight[:h], key[:h] + 0.1 * 3**0.5)
    assert torch.equal(block.k.weight[h:], key[h:])


def test_a_single_matrix_is_taken_as_it_is() -> None:
    model = make_model()
    one = single_stack(shape_of(model), 2, "down_proj")
    assert torch.equal(stack(model, one)[0], blocks_of(model)[2].down.weight)


def test_blocks_of_different_widths_are_not_stacked() -> None:
    model = make_model()
    blocks = dict(shape_of(model).keep_all().blocks)
    blocks[1] = BlockKept((0, 1), tuple(range(50)))
    shape = shape_of(prune(model, Kept(blocks)))
    mode: Any
    for mode, what in ((4, "96 and 50 channels"), (1, "4 and 2 heads")):
        with pytest.raises(MethodError, match=f"blocks 0 and 1 have {what}, and only equal widths can be stacked"):
            stacks_of(shape, mode, range(4))
    assert len(stacks_of(shape, 5, range(4))) == 4


def test_what_half_precision_cannot_hold_is_refused() -> None:
    model = make_model().half()
    one = stacks_of(shape_of(model), 5, [0])[0][0]
    with pytest.raises(MethodError, match=r"does not fit torch\.float16"):
        unstack(model, one, torch.full((3, 96, 64), 7e4))
