"""An adapter with the merged weights: stock peft on the dense model and stock transformers give the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from bench.blocks.groups import kept_of
from bench.blocks.lora import recover
from bench.blocks.settings import LoraRecovery
from bench.model.adapter import adapter_of
from bench.model.checkpoint import load_checkpoint, save_checkpoint
from bench.registry import load_registry
from methods.capaboost.branches import BranchMasks
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

STEPS = {"steps": 4, "batch_size": 2, "max_length": 32, "lr": 2e-2, "warmup_steps": 1}
SHAPE: dict[str, Any] = {"kv_heads": 2, "tied": True}


def tuned(name: str, **config: object) -> LlamaForCausalLM:
    cls = load_registry().method(name).cls
    return cls(cls.Config(**STEPS | config)).compress(make_model(**SHAPE).requires_grad_(False), make_context())


def saved(model: LlamaForCausalLM, folder: Path) -> Path:
    save_checkpoint(folder, model, None, ingredients={}, achieved={}, kept=kept_of(model))
    return folder


@pytest.mark.parametrize(
    ("name", "config", "rank", "scale"),
    [
        ("lora", {"r": 4, "alpha": 12}, 4, 3.0),
        ("capaboost", {"r": 4, "alpha": 12, "d": 3}, 12, 3.0),
        ("capaboost", {"r": 4, "alpha": 12, "d": 3, "normalize_scale": True}, 12, 4.0),
        ("capaboost", {"r": 4, "alpha": 12, "mask_type": "nm", "targets": ("gate_proj", "down_proj")}, 8, 3.0),
    ],
)
@torch.no_grad()
def test_stock_peft_and_stock_transformers_agree(name, config, rank, scale, tmp_path: Path) -> None:
    model = tuned(name, **config)
    folder, ids = saved(model, tmp_path / "c"), token_ids(2, 12)
    expected = model(ids).logits
    assert (expected - make_model(**SHAPE)(ids).logits).abs().max() > 0.1
    on_dense = PeftModel.from_pretrained(make_model(**SHAPE), folder / "adapter")
    assert {(m.r["default"], m.scaling["default"]) for m in on_dense.modules() if hasattr(m, "lora_A")} == {
        (rank, scale)
    }
    torch.testing.assert_close(on_dense(ids).logits, expected, atol=1e-5, rtol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert type(plain) is LlamaForCausalLM
    assert not (folder / "adapter_config.json").exists()
    assert torch.equal(plain(ids).logits, expected)
    assert torch.equal(load_checkpoint(folder)[0](ids).logits, expected)


def test_the_adapter_names_no_path_of_this_machine_and_counts_for_nothing(tmp_path: Path) -> None:
    make_model(**SHAPE).save_pretrained(tmp_path / "dense")
    dense = LlamaForCausalLM.from_pretrained(tmp_path / "dense").requires_grad_(False)
    method = load_registry().method("lora").cls
    folder = saved(method(method.Config(**STEPS)).compress(dense, make_context()), tmp_path / "c")
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert str(tmp_path) not in (folder / "adapter" / "adapter_config.json").read_text()
    assert settings["peft_type"] == "LORA"
    assert settings["inference_mode"] is True
    assert set(settings["target_modules"]) == {"q_proj", "v_proj"}
    sizes = json.loads((folder / "leanboard.json").read_text())["sizes"]
    assert sizes["bytes.disk"] == (folder / "model.safetensors").stat().st_size
    assert sizes["params.stored"] == sum(p.numel() for p in make_model(**SHAPE).parameters())


def test_the_zeros_of_a_saved_adapter_are_the_masks_of_its_config(tmp_path: Path) -> None:
    folder = saved(tuned("capaboost", r=4, d=3, mask_seed=5), tmp_path / "c")
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    masks = BranchMasks(3, 0.5, "unstructured", 5)
    assert len(weights) == 16
    for name, weight in weights.items():
        path, _, factor = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        rows, columns = weight.shape
        shape = (rows // 3, columns) if factor == "A" else (rows, columns // 3)
        expected = torch.cat(masks.draw(f"{path}|{factor}", shape).unbind(), 0 if factor == "A" else 1)
        assert torch.equal(weight != 0, expected)


def test_an_adapter_that_no_longer_tells_the_whole_change_is_dropped(tmp_path: Path) -> None:
    model = tuned("lora")
    assert adapter_of(model) is not None
    recovered = recover(model, make_context(), LoraRecovery(**STEPS | {"holdout": 0}))
    assert adapter_of(recovered) is None
    assert not (saved(recovered, tmp_path / "c") / "adapter").exists()
