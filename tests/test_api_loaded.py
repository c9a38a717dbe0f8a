"""The Python interface with a model that is in memory already."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForSequenceClassification, PreTrainedModel

from bench import Target, compress, evaluate
from bench.errors import UsageError
from bench.model.load import load_folder
from bench.model.loaded import save_loaded
from tests.packs import make_pack, tables


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def key_parts(folder: Path) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads((folder / "leanboard.json").read_text())["ingredients"]
    return parts


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


def test_a_path_is_a_folder_whatever_its_name(tiny_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = compress(tiny_gqa, "dense", out="llama-7b")
    assert {m.id: m.value for m in evaluate(made, ["size"])} == {m.id: m.value for m in evaluate(tiny_gqa, ["size"])}


@pytest.fixture
def model(tiny_gqa: Path) -> PreTrainedModel:
    return load_folder(tiny_gqa, "bfloat16")[0]


def test_it_is_compressed_as_its_folder_is_and_stays_as_it_was(
    model: PreTrainedModel, tiny_gqa: Path, tmp_path: Path
) -> None:
    model.train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    config, tokenizer = model.config.to_dict(), load_folder(tiny_gqa)[1]
    order: dict[str, Any] = {"target": Target(value=0.3), "dtype": "bfloat16", "device": "cpu"}
    made = compress(model, "magnitude", tokenizer=tokenizer, out=tmp_path / "loaded", **order)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert (model.config.to_dict(), model.training) == (config, True)
    from_folder = compress(tiny_gqa, "magnitude", out=tmp_path / "folder", **order)
    assert made.kept == from_folder.kept
    saved, expected = weights_of(made.path), weights_of(from_folder.path)
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    assert (made.path / "tokenizer.json").exists()


def test_its_key_is_of_its_weights_and_it_is_saved_once(model: PreTrainedModel, tmp_path: Path) -> None:
    for out in ("a", "b"):
        compress(model, "magnitude", target=Target(value=0.3), out=tmp_path / out)
    [folder] = (tmp_path / "cache" / "models").glob("loaded-*")
    assert {weight.dtype for weight in weights_of(folder).values()} == {torch.bfloat16}
    assert {weight.dtype for weight in weights_of(tmp_path / "a").values()} == {torch.float32}
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    compress(model, "magnitude", target=Target(value=0.3), out=tmp_path / "c")
    parts = [key_parts(tmp_path / out) for out in "abc"]
    assert parts[0] == parts[1]
    assert parts[0]["weights"] != parts[2]["weights"]


def test_it_is_measured_as_its_folder_is(
    model: PreTrainedModel, tiny_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / "pack", tables())))
    tokenizer = load_folder(tiny_gqa)[1]
    tasks = ["piqa", "wikitext2@128"]
    order: dict[str, Any] = {"limit": 3, "dtype": "bfloat16", "device": "cpu"}
    assert evaluate(model, tasks, tokenizer=tokenizer, **order) == evaluate(tiny_gqa, tasks, **order)
    with pytest.raises(UsageError, match="the checkpoint has no tokenizer"):
        evaluate(model, tasks, **order)


def test_a_compressed_model_may_be_compressed_again(tiny_gqa: Path, tmp_path: Path) -> None:
    first = compress(tiny_gqa, "llm_pruner", config=CONFIG, calibration=IDS, out=tmp_path / "first")
    loaded = load_folder(first.path)[0]
    loaded_again = load_folder(save_loaded(loaded, None))[0]
    with torch.no_grad():
        assert torch.equal(loaded(IDS[:1]).logits, loaded_again(IDS[:1]).logits)


IDS = torch.arange(640).view(10, 64) % 300
CONFIG = {"layers": [1, 3], "group_ratio": 0.5}


def refused(model: object) -> str:
    with pytest.raises(UsageError) as caught:
        save_loaded(model, None)
    return str(caught.value)


def test_what_cannot_be_saved_as_it_is_is_refused_by_the_name_of_the_argument(model: PreTrainedModel) -> None:
    assert refused(LlamaForSequenceClassification(model.config)) == (
        "model: LlamaForSequenceClassification has no language-model head"
    )
    assert refused(model.double()).endswith("is torch.float64, and only float32, float16 and bfloat16 are supported")
    assert "is not in memory" in refused(model.to("meta"))
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10))
    assert refused(gpt2).startswith("model: model_type: 'gpt2' is of no known family")


def test_adapters_that_are_not_merged_are_refused(model: PreTrainedModel) -> None:
    from peft import LoraConfig, get_peft_model

    assert "merge its adapter first" in refused(get_peft_model(model, LoraConfig(target_modules=["q_proj"])))
