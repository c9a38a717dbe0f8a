"""What a table cannot say is refused in one sentence that names config.json and the field; what it can is taken."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import bench
from bench import cli
from bench.checkpoint_files import check_checkpoint
from bench.errors import LeanboardError
from bench.model.checkpoint import load_checkpoint, save_checkpoint
from bench.model.layers import shape_of, window_of
from bench.model.load import load_folder
from bench.model.surgery import kept_of, prune
from bench.shape import Kept
from tests.families.models import assert_same, logits
from tests.families.test_surgery import assert_left, some_kept
from tests.suites import make_suite
from tests.tiny import make_checkpoint

WIDTHS = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA = {"model_type": "llama", **WIDTHS}
QWEN2 = {"model_type": "qwen2", **WIDTHS}
SLIDING = {"use_sliding_window": True, "sliding_window": 8}
UNKNOWN = r"is of no known family; known are llama, mistral, qwen2, qwen3$"
DIFFER = "windows that differ from layer to layer are not supported$"
EXPERTS = "mixtures of experts are not supported$"
PARALLEL = "blocks whose attention and MLP run in parallel are not supported$"
SENSES = "models with parts for images or sound are not supported$"


def of_transformers(name: str) -> dict[str, Any]:
    """What transformers saves of a family that no table is of."""
    cls = getattr(transformers, f"{name}Config")
    config: dict[str, Any] = cls(**WIDTHS, pad_token_id=0, eos_token_id=2).to_dict()
    return config


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fused projections": (of_transformers("Phi3"), f"model_type: 'phi3' {UNKNOWN}"),
    "experts": (of_transformers("Mixtral"), f"num_local_experts: {EXPERTS}"),
    "experts and shared ones": (of_transformers("Qwen2Moe"), f"num_experts: {EXPERTS}"),
    "parallel residuals": (of_transformers("GPTNeoX"), f"use_parallel_residual: {PARALLEL}"),
    "parallel attention": (of_transformers("Falcon"), f"parallel_attn: {PARALLEL}"),
    "norms with an offset": (of_transformers("Gemma2"), f"model_type: 'gemma2' {UNKNOWN}"),
    "sinks and experts": (of_transformers("GptOss"), f"num_local_experts: {EXPERTS}"),
    "sinks": (LLAMA | {"attention_sinks": True}, "attention_sinks: attention sinks are not supported$"),
    "images": (transformers.Qwen2VLConfig().to_dict(), f"vision_config: {SENSES}"),
    "sound": (LLAMA | {"audio_config": {"hidden_size": 8}}, f"audio_config: {SENSES}"),
    "first layers without window": (QWEN2 | SLIDING | {"max_window_layers": 1}, f"max_window_layers: {DIFFER}"),
    "windows as transformers saves them": (
        transformers.Qwen2Config(**WIDTHS, **SLIDING, max_window_layers=1).to_dict(),
        f"layer_types: {DIFFER}",
    ),
    "every second layer": (LLAMA | {"layer_types": ["sliding_attention", "full_attention"]}, f"layer_types: {DIFFER}"),
    "key/value heads": (
        LLAMA | {"num_key_value_heads": 3},
        "num_key_value_heads: 4 query heads are not a multiple of 3 key/value heads$",
    ),
    "key/value heads by default": (
        {name: value for name, value in (LLAMA | {"model_type": "mistral"}).items() if name != "num_key_value_heads"},
        "num_key_value_heads: 4 query heads are not a multiple of 8 key/value heads$",
    ),
    "heads": (LLAMA | {"hidden_size": 66}, "hidden_size: 66 is no multiple of 4 heads, and head_dim is missing$"),
    "a head dimension in letters": (LLAMA | {"head_dim": "16"}, "head_dim: missing or not a positive number$"),
    **{
        f"no {width}": (
            {name: value for name, value in (QWEN2 | SLIDING | {"max_window_layers": 0}).items() if name != width},
            f"{width}: missing or not a positive number$",
        )
        for width in WIDTHS
        if width != "num_key_value_heads"
    },
}


def folder_of(config: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("config", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_it_is_refused_in_one_sentence(config: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = folder_of(config, tmp_path / "model")
    for use in (check_checkpoint, load_folder):
        with pytest.raises(LeanboardError, match=f"^{folder}/config.json: {sentence}") as caught:
            use(folder)
        assert caught.value.exit_code == 2


def test_everywhere_where_models_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEANBOARD_OFFLINE", "1")
    folder = folder_of(REFUSED["first layers without window"][0], tmp_path / "model")
    sentence = f"{folder}/config.json: max_window_layers: windows that differ from layer to layer are not supported"
    with pytest.raises(LeanboardError, match=sentence):
        bench.compress(folder, "random", target={"basis": "params", "value": 0.2}, out=tmp_path / "out")
    with pytest.raises(LeanboardError, match=sentence):
        bench.evaluate(folder, ["size"])
    suite = make_suite(tmp_path, models=["llama-7b"], methods=["dense"], tasks=["size"])
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "pack"))
    capsys.readouterr()
    for extra in ([], ["--weights", "random"]):
        typed = ["leanboard", "plan", str(suite), "--model-path", f"llama-7b={folder}", *extra]
        monkeypatch.setattr(sys, "argv", typed)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines() == [f"leanboard: {sentence}"]
    assert not (tmp_path / "out").exists()


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
TAKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama3": ({}, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3}}),
    "llama3, as older files say": ({}, {"rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}),
    "linear": ({}, {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    "yarn": (
        {"family": "qwen2"},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    ),
    "a window in all layers": ({"family": "mistral"}, {"sliding_window": 9}),
    "a window that layers name": (
        {"family": "qwen3", "head_dim": 24},
        {"use_sliding_window": True, "sliding_window": 9, "layer_types": ["sliding_attention"] * 4},
    ),
    "no window": ({"family": "mistral"}, {"sliding_window": None}),
    "tied": ({"family": "qwen2", "tied": True}, {}),
    "untied": ({"family": "qwen2"}, {}),
}


@pytest.mark.parametrize(("made", "fields"), TAKEN.values(), ids=list(TAKEN))
def test_it_is_taken_and_kept(made: dict[str, Any], fields: dict[str, Any], tmp_path: Path) -> None:
    """Loaded as transformers loads it; and what pruning leaves still has it, in memory and on the disk."""
    folder = make_checkpoint(tmp_path / "model", kv_heads=2, **made)
    config = json.loads((folder / "config.json").read_text())
    if not fields.keys().isdisjoint({"rope_scaling", "rope_theta"}):
        del config["rope_parameters"]
    plain = logits(load_folder(folder)[0])
    (folder / "config.json").write_text(json.dumps(config | fields))
    model, _ = load_folder(folder)
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert torch.equal(logits(model), logits(stock))
    without = made.get("family") == "mistral" and fields["sliding_window"] is None  # windows by default: longer
    assert torch.equal(logits(model), plain) == (not fields or without)
    assert window_of(model) == fields.get("sliding_window")
    assert shape_of(model).tied == made.get("tied", False)
    for kept in (some_kept(model), Kept(dict(list(shape_of(model).keep_all().blocks.items())[:2]))):
        left = prune(load_folder(folder)[0], kept)
        assert_left(left, load_folder(folder)[0], kept)
        save_checkpoint(tmp_path / "left", left, None, ingredients={}, achieved={}, kept=kept_of(left))
        again, _ = load_checkpoint(tmp_path / "left")
        assert_same(logits(again), logits(left))
        assert window_of(again) == window_of(model)
