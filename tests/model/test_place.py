"""One model on several devices: where its blocks go, and that it computes what it does on one.

The second device is pretended (`tests.devices.pretended`): what is not moved to it raises.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from bench.blocks.groups import shape_of
from bench.measure.generation.backend import Workload
from bench.measure.generation.hf import Transformers
from bench.measure.generation.timing import Local
from bench.measure.perplexity import window_losses
from bench.model.load import load_folder
from bench.model.place import Placement, place
from bench.shape import BlockShape, Shape
from tests.blocks.context import token_ids
from tests.devices.pretended import DEVICE, OnDevice, pretended
from tests.devices.test_mixing import CASES as EVERY
from tests.devices.test_mixing import EXAMPLES, answers, assert_same_weights, compressed, recovered
from tests.model.test_factors import factored
from tests.tiny import make_checkpoint

GB = 10**9
LLAMA13 = Shape(hidden=5120, head_dim=128, vocab=32000, tied=False, blocks=(BlockShape(40, 40, 13824),) * 40)
LLAMA7 = Shape(hidden=4096, head_dim=128, vocab=32000, tied=False, blocks=(BlockShape(32, 32, 11008),) * 32)
TWO = {"cuda:0": 21 * GB, "cuda:1": 21 * GB}
SPLIT = {
    "two devices": Placement("cpu", ("cpu", DEVICE, DEVICE, "cpu")),
    "offload": Placement(DEVICE, (DEVICE, "cpu", "cpu", DEVICE)),
}
CHOSEN = ({"mode": "channel"}, {"form": "adapter"}, {"decomposition": "tucker", "mode": 1})
CASES = [(name, config) for name, config in EVERY if config in ({}, *CHOSEN)]
PLACED = [
    pytest.param(name, config, where, marks=() if (where == "offload") == bool(config) else pytest.mark.product)
    for name, config in CASES
    for where in SPLIT
]
"""Each method by its defaults on two devices, with what is chosen by offload; the rest by `tox -e product`."""


def test_13b_in_bfloat16_takes_two_cards_of_24_gb_in_halves() -> None:
    assert LLAMA13.params() == 13_015_864_320
    found = place(LLAMA13, 2, TWO)
    assert found is not None
    assert found.first == "cuda:0"
    assert list(found.blocks) == sorted(found.blocks)
    counts = Counter(found.blocks)
    block = 2 * (4 * 5120**2 + 3 * 5120 * 13824 + 2 * 5120)
    outer = 2 * (2 * 32000 * 5120 + 5120)
    assert counts["cuda:0"] + counts["cuda:1"] == 40
    assert abs(counts["cuda:0"] * block + outer - counts["cuda:1"] * block) <= 2 * block


def test_what_the_cards_do_not_hold_stays_in_the_cpus_memory() -> None:
    found = place(LLAMA13, 2, {"cuda:0": 21 * GB})
    assert found is not None
    block, outer = 2 * 317_204_480, 2 * (2 * 32000 * 5120 + 5120)
    held = (21 * GB - outer - block) // block
    assert found.blocks == ("cuda:0",) * held + ("cpu",) * (40 - held)


def test_what_one_card_holds_is_not_spread() -> None:
    assert place(LLAMA7, 2, TWO) is None
    assert place(LLAMA13, 2, {"cuda:0": 30 * GB}) is None
    assert place(LLAMA13, 2, {}) is None


def test_weights_lie_where_their_block_does() -> None:
    there = SPLIT["two devices"]
    family = LLAMA13.family
    assert there.device_of("model.layers.2.mlp.up_proj.weight", family) == DEVICE
    assert there.device_of("model.layers.3.mlp.up_proj.weight", family) == "cpu"
    assert there.device_of("model.embed_tokens.weight", family) == "cpu"
    assert Placement("cuda").device_of("model.layers.2.mlp.up_proj.weight", family) == "cuda"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), kv_heads=2)


@pytest.fixture(params=SPLIT)
def placement(request: pytest.FixtureRequest) -> Placement:
    return SPLIT[request.param]


def loaded(folder: Path, placement: Placement | None) -> PreTrainedModel:
    return load_folder(folder, "float32", "cpu", placement)[0]


def on_both(folder: Path, placement: Placement, do: Any) -> tuple[Any, Any]:
    plain = do(loaded(folder, None))
    with pretended():
        model = loaded(folder, placement)
        assert [where_it_lies(layer) for layer in model.model.layers] == list(placement.blocks)
        found = do(model)
        assert [where_it_lies(layer) for layer in model.model.layers] == list(placement.blocks)
        return plain, found


def where_it_lies(layer: torch.nn.Module) -> str:
    return DEVICE if isinstance(next(layer.parameters()).data, OnDevice) else "cpu"


def test_perplexity_is_that_of_one_device(folder: Path, placement: Placement) -> None:
    plain, spread = on_both(folder, placement, lambda model: window_losses(model, token_ids(3, 40)))
    assert spread == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("examples", ["", EXAMPLES], ids=["0shot", "5shot"])
def test_accuracy_is_that_of_one_device(folder: Path, placement: Placement, examples: str) -> None:
    plain, spread = on_both(folder, placement, lambda model: answers(model, examples))
    assert [logp for logp, _ in spread] == pytest.approx([logp for logp, _ in plain], rel=1e-5)


def test_generation_is_that_of_one_device(folder: Path, placement: Placement) -> None:
    def generated(model: PreTrainedModel) -> Any:
        backend: Any = Transformers(model)
        return Local(backend).generate(Workload(2, 12, 5)).ids, backend.spread

    (plain, nowhere), (spread, how) = on_both(folder, placement, generated)
    assert spread == plain
    assert nowhere is None
    counts = ["2 in the CPU's memory", f"2 on {DEVICE}"]
    assert how in {f"its blocks are spread: {', '.join(order)}" for order in (counts, counts[::-1])}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config", "where"), PLACED, ids=str)
def test_methods_give_the_weights_of_one_device(folder: Path, name: str, config: dict[str, Any], where: str) -> None:
    plain = compressed(loaded(folder, None), name, config)
    with pretended():
        assert_same_weights(plain, compressed(loaded(folder, SPLIT[where]), name, config))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "grouped"])
def test_recoveries_give_the_weights_of_one_device(folder: Path, placement: Placement, name: str) -> None:
    plain = recovered(compressed(loaded(folder, None), "magnitude", {}), name)
    with pretended():
        spread = compressed(loaded(folder, placement), "magnitude", {})
        assert len({where_it_lies(layer) for layer in spread.model.layers}) == 2
        assert_same_weights(plain, recovered(spread, name))


def test_factors_that_devices_share_are_on_each(tmp_path: Path, placement: Placement) -> None:
    model = factored({"kv_heads": 2})[0]
    model.save_pretrained(tmp_path)
    assert shape_of(model).factors
    plain, spread = on_both(tmp_path, placement, lambda model: window_losses(model, token_ids(2, 24)))
    assert spread == pytest.approx(plain, rel=1e-5)


def test_a_block_whose_pass_fails_has_its_weights_back(folder: Path) -> None:
    with pretended():
        model = loaded(folder, SPLIT["offload"])
        weight = model.model.layers[1].mlp.up_proj.weight
        model.model.layers[1].mlp.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(input_ids=token_ids(1, 8).to(DEVICE))
        assert model.model.layers[1].mlp.up_proj.weight is weight
