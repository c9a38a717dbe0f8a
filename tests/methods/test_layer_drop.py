"""Layer drop: the measures against hidden states that transformers itself gives, the sizes against counting."""

import math

import pytest
import torch

from bench.blocks.activations import wanda_scores
from bench.blocks.groups import blocks_of, kept_of, shape_of
from bench.errors import MethodError, UsageError
from bench.method import Preset, Target
from bench.registry import load_registry
from methods.layer_drop.method import order_by, read_stream
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model


def compress(model, ctx=None, **config):
    entry = load_registry().method("layer_drop")
    return entry.cls(entry.config(Preset(description=""), config)).compress(model, ctx or make_context())


def states(model, ids):
    """Before, between and after the blocks; the last before the final norm."""
    last = []
    hook = model.model.layers[-1].register_forward_hook(lambda *args: last.append(args[2]))
    with torch.no_grad():
        found = model(ids, output_hidden_states=True).hidden_states[:-1]
    hook.remove()
    return [*found, last[0]]


def test_influence_and_angles_are_those_of_the_papers():
    model, ids = make_model(layers=3), token_ids(10, 7)
    stream, x = read_stream(model, ids), states(model, ids)

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    for i in range(3):
        turned = [1 - cosine(a, b) for a, b in zip(x[i].flatten(0, 1), x[i + 1].flatten(0, 1), strict=True)]
        assert float(stream.influence[i]) == pytest.approx(sum(turned) / 70, rel=1e-4)
        for j in range(i + 1, 4):
            angles = [math.acos(cosine(a, b)) / math.pi for a, b in zip(x[i][:, -1], x[j][:, -1], strict=True)]
            assert float(stream.angles[i, j]) == pytest.approx(sum(angles) / 10, rel=1e-3)


def test_blocks_that_do_nothing_go_first_and_cost_nothing():
    model, ids = make_model(layers=6), token_ids(4, 9)
    with torch.no_grad():
        for i in (1, 4):
            blocks_of(model)[i].o.weight.zero_()
            blocks_of(model)[i].down.weight.zero_()
        dense = model(ids).logits
    pruned = compress(model, ratio=2 / 6)
    assert sorted(kept_of(pruned).blocks) == [0, 2, 3, 5]
    torch.testing.assert_close(pruned(ids).logits, dense)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_run_that_goes_is_the_one_whose_ends_are_most_alike(count):
    model, ids = make_model(layers=5, seed=3), token_ids(6, 8)
    angles = read_stream(model, ids).angles
    start = min(range(6 - count), key=lambda i: float(angles[i, i + count]))
    pruned = compress(model, make_context(ids=ids), order="contiguous", ratio=count / 5 + 1e-9, remainder=False)
    assert sorted(set(range(5)) - set(kept_of(pruned).blocks)) == list(range(start, start + count))


def test_last_takes_the_last_and_reads_no_text_without_a_remainder():
    ctx = make_context()
    pruned = compress(make_model(), ctx, order="last", ratio=0.5, remainder=False)
    assert sorted(kept_of(pruned).blocks) == [0, 1]
    assert ctx.meter.calibration_tokens == 0


@pytest.mark.parametrize("order", ["influence", "contiguous", "last"])
@pytest.mark.parametrize("value", [0.15, 0.35, 0.6])
def test_the_remainder_meets_the_target_in_as_few_blocks_as_can_be(order, value):
    model = make_model(layers=6)
    dense = shape_of(model)
    pruned = compress(model, make_context(target=Target(value=value)), order=order)
    after = shape_of(pruned)
    assert abs(dense.removed(after)["params"] - value) < 0.001
    block = dense.block_params() / 6
    assert len(after.blocks) == 6 - int(value * dense.params() / block)
    assert sum(b.channels < 96 for b in after.blocks) <= 2
    assert all(b.heads == 4 for b in after.blocks)


def test_the_remainder_is_the_worst_channels_of_the_next_block():
    model, ids = make_model(layers=6, channels=256), token_ids(6, 8)
    scores = wanda_scores(model, range(6), ids).mlp
    order = order_by("influence", read_stream(model, ids))(1)
    pruned = compress(model, make_context(ids=ids), ratio=1.5 / 6)
    kept = kept_of(pruned).blocks
    assert order[0] not in kept
    cut = round(0.5 * (4 * 64 * 64 + 3 * 64 * 256 + 128) / (3 * 64))
    assert set(range(256)) - set(kept[order[1]].channels) == set(scores[order[1]].argsort()[:cut].tolist())
    assert all(len(kept[i].channels) == 256 for i in order[2:])


def test_without_a_remainder_a_target_between_two_blocks_is_an_error_that_names_both():
    dense = shape_of(make_model())
    share = dense.block_params() / 4 / dense.params()
    ctx = make_context(target=Target(value=share))
    assert len(kept_of(compress(make_model(), ctx, remainder=False)).blocks) == 3
    ctx = make_context(target=Target(value=1.5 * share))
    with pytest.raises(MethodError, match=f"can be removed is {share:.4f} or {2 * share:.4f}"):
        compress(make_model(), ctx, remainder=False)


def test_one_block_always_stays():
    pruned = compress(make_model(), ratio=0.99, remainder=False)
    assert len(kept_of(pruned).blocks) == 1


@pytest.mark.parametrize(("field", "value"), [("order", "first"), ("ratio", 1.0), ("remainder", "perhaps")])
def test_bad_settings_are_refused(field, value):
    with pytest.raises(UsageError, match=field):
        compress(make_model(), **{field: value})
