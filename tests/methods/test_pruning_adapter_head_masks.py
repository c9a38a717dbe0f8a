from typing import Any

import pytest
import torch

from bench.blocks.groups import blocks_of, keep_groups, prune, shape_of
from bench.errors import MethodError
from bench.method import Example
from methods.pruning_adapter.head_masks import UnitMasks, mask_importance, masked
from tests.blocks.context import token_ids
from tests.tiny import make_model

SHAPES: dict[str, dict[str, Any]] = {
    "mha": {},
    "gqa": {"heads": 8, "kv_heads": 4},
    "gqa-tied": {"kv_heads": 2, "tied": True},
}


@pytest.fixture(params=SHAPES)
def model(request):
    return make_model(layers=2, **SHAPES[request.param]).requires_grad_(False)


def examples(n=3, first=8):
    """Rows of different lengths whose beginning takes no loss."""
    return [
        Example(row[: 16 + i], [-100] * first + row[first : 16 + i])
        for i, row in enumerate(token_ids(n, 24, seed=5).tolist())
    ]


def loss_of(model, example):
    """The mean loss per target, by transformers itself."""
    return model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).loss


def inputs_of(model, linears, example):
    """What each of `linears` reads, with its gradient."""
    seen = {}

    def keep(module, args):
        args[0].requires_grad_()
        args[0].retain_grad()
        seen[module] = args[0]

    hooks = [linear.register_forward_pre_hook(keep) for linear in linears]
    with torch.enable_grad():
        loss_of(model, example).backward()
    for hook in hooks:
        hook.remove()
    return [(seen[linear].detach(), seen[linear].grad) for linear in linears]


def test_a_mask_of_zero_is_the_model_without_the_unit(model):
    ids, shape, block = token_ids(2, 9), shape_of(model), blocks_of(model)[1]
    heads, channels = torch.ones(shape.blocks[1].heads), torch.ones(96)
    with masked(model, UnitMasks({1: heads}, {1: channels})):
        assert torch.equal(model(ids).logits, model(ids).logits)
        unchanged = model(ids).logits
    torch.testing.assert_close(model(ids).logits, unchanged)
    heads[2], channels[5] = 0, 0
    with masked(model, UnitMasks({1: heads}, {1: channels})):
        masked_logits = model(ids).logits
    block.o.weight[:, 2 * shape.head_dim : 3 * shape.head_dim] = 0
    block.down.weight[:, 5] = 0
    torch.testing.assert_close(masked_logits, model(ids).logits)
    assert not torch.allclose(masked_logits, unchanged)


def test_masks_of_whole_groups_equal_pruning(model):
    ids, shape = token_ids(2, 9), shape_of(model)
    kv_heads, n_rep = shape.blocks[0].kv_heads, shape.blocks[0].heads // shape.blocks[0].kv_heads
    masks = UnitMasks(
        {0: torch.tensor([0.0] + [1.0] * (kv_heads - 1)).repeat_interleave(n_rep)},
        {1: (torch.arange(96) % 3 > 0).float()},
    )
    with masked(model, masks):
        masked_logits = model(ids).logits
    kept = keep_groups(shape, {0: range(1, kv_heads)}, {1: [i for i in range(96) if i % 3]})
    torch.testing.assert_close(prune(model, kept)(ids).logits, masked_logits, atol=1e-5, rtol=1e-5)


def test_importance_is_the_product_of_output_and_gradient(model):
    """|sum over tokens of <dL/dc, c>| of each example, then the sum over examples."""
    shape, blocks = shape_of(model), blocks_of(model)
    found = mask_importance(model, examples(), channels=True)
    heads, channels = torch.zeros(2, shape.blocks[0].heads), torch.zeros(2, 96)
    for example in examples():
        read = inputs_of(model, [block.o for block in blocks] + [block.down for block in blocks], example)
        products = [(value * gradient).sum((0, 1)) for value, gradient in read]
        heads += torch.stack(products[:2]).view(2, -1, shape.head_dim).sum(-1).abs()
        channels += torch.stack(products[2:]).abs()
    for layer in range(2):
        torch.testing.assert_close(found.heads[layer], heads[layer])
        torch.testing.assert_close(found.channels[layer], channels[layer])


def test_importance_is_the_slope_of_the_loss(model):
    [example], step = examples(1), 1e-2
    found = mask_importance(model, [example], channels=True)
    sizes = [(len(found.heads[1]), "heads"), (96, "channels")]
    for size, kind in sizes:
        for unit in (0, size - 1):
            losses = []
            for sign in (1, -1):
                mask = torch.ones(size)
                mask[unit] += sign * step
                with masked(model, UnitMasks(**{"heads": {}, kind: {1: mask}})):
                    losses.append(loss_of(model, example).item())
            slope = (losses[0] - losses[1]) / (2 * step)
            assert abs(slope) == pytest.approx(getattr(found, kind)[1][unit].item(), rel=0.02, abs=1e-4)


def test_absolute_values_are_taken_example_by_example(model):
    both = mask_importance(model, examples(2)).heads
    singly = [mask_importance(model, [example]).heads for example in examples(2)]
    for layer in both:
        torch.testing.assert_close(both[layer], singly[0][layer] + singly[1][layer])
        assert (both[layer] >= 0).all()


def test_channels_are_scored_only_where_asked(model):
    assert mask_importance(model, examples(1)).channels == {}


def test_layers_of_different_widths_and_progress(model):
    kv_heads = shape_of(model).blocks[0].kv_heads
    narrow = prune(model, keep_groups(shape_of(model), {1: range(kv_heads - 1)}, {0: range(40)}))
    told = []
    found = mask_importance(narrow, examples(), channels=True, progress=lambda *state: told.append(state))
    assert [len(found.heads[i]) for i in range(2)] == [block.heads for block in shape_of(narrow).blocks]
    assert [len(found.channels[i]) for i in range(2)] == [40, 96]
    assert told == [("importance", done, 3) for done in (1, 2, 3)]


def test_nothing_is_left_behind(model):
    model.requires_grad_(True)
    mask_importance(model, examples(1), channels=True)
    with pytest.raises(ZeroDivisionError), masked(model, UnitMasks({0: torch.ones(shape_of(model).blocks[0].heads)})):
        raise ZeroDivisionError
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_not_finite_is_a_clear_error(model):
    blocks_of(model)[0].up.weight[0, 0] = torch.nan
    with pytest.raises(MethodError, match="importance of heads is not finite"):
        mask_importance(model, examples(1))


def test_half_precision_is_summed_in_float32(model):
    exact = mask_importance(model, examples()).heads
    rough = mask_importance(model.to(torch.bfloat16), examples()).heads
    assert all(vector.dtype == torch.float32 for vector in rough.values())
    assert torch.cat(list(rough.values())).argmax() == torch.cat(list(exact.values())).argmax()
