"""Checkpoints as they lie on the hub give the logits and ids of stock transformers; what is wrong in them is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.catalogue import CATALOGUE
from bench.errors import DataError
from bench.measure.continuations import continued
from bench.measure.subject import Subject
from bench.model.load import load_folder
from bench.model.stand_in import Layout, small_config, write_stand_in

TEXT = "The quick brown fox, 42 of them; jumps over é and 你.\n\n  Twice."


@pytest.fixture
def folder(tiny_mha: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_mha, tmp_path / "model")


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaMA's kind of tokenizer as tokenizer.model alone, and no token for padding."""
    folder = tmp_path_factory.mktemp("models") / "vicuna"
    layout = Layout("safetensors", "sentencepiece", fast=False)
    write_stand_in(folder, small_config(CATALOGUE["vicuna-7b"].config), layout)
    return folder


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    content |= changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def weights(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    state = load_file(file) | changes
    save_file({name: w for name, w in state.items() if w is not None}, file, metadata={"format": "pt"})


def check_as_stock(folder: Path) -> None:
    """In float32: the same ids of a text, and the same logits."""
    model, tokenizer = load_folder(folder)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(ids, AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt").input_ids)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, stock(ids).logits)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 300.0},
        {"rope_theta": 300.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {
            "rope_theta": 300.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        {"torch_dtype": "float16", "dtype": None, "eos_token_id": [2, 7]},
    ],
    ids=["base", "linear", "llama3", "dtype"],
)
def test_fields_of_older_configs_mean_what_they_meant(folder: Path, fields: dict[str, Any]) -> None:
    before = load_folder(folder)[0].model.rotary_emb.inv_freq
    edit(folder / "config.json", rope_parameters=None, **fields)
    check_as_stock(folder)
    is_rope = "rope_theta" in fields
    assert torch.equal(load_folder(folder)[0].model.rotary_emb.inv_freq, before) != is_rope


def test_a_tokenizer_model_alone_is_read(vicuna: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    check_as_stock(vicuna)
    tokenizer = load_folder(vicuna)[1]
    assert tokenizer.pad_token is None
    own = SentencePieceProcessor(model_file=str(vicuna / "tokenizer.model"))
    assert tokenizer(TEXT).input_ids == [tokenizer.bos_token_id, *own.encode(TEXT)]


def test_added_tokens_with_an_embedding_are_read_and_others_refused(vicuna: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vicuna, tmp_path / "model")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    edit(folder / "added_tokens.json", **{"<x>": 1000})
    check_as_stock(folder)
    assert 1000 in load_folder(folder)[1]("<x> hi").input_ids
    edit(folder / "added_tokens.json", **{f"<{i}>": i for i in range(1001, size + 2)})
    with pytest.raises(DataError, match=rf"2 tokens, the first '<{size}>' with id {size}, are beyond .* of {size}$"):
        load_folder(folder)
    shutil.rmtree(folder)
    shutil.copytree(vicuna, folder)
    edit(folder / "config.json", vocab_size=1000)
    embedding = "model.embed_tokens.weight"
    for file in folder.glob("*.safetensors"):
        state = {name: w[:1000] if name in (embedding, "lm_head.weight") else w for name, w in load_file(file).items()}
        save_file({name: w.contiguous() for name, w in state.items()}, file, metadata={"format": "pt"})
    edit(folder / "tokenizer_config.json", pad_token="[PAD]")
    assert load_folder(folder)[1].pad_token_id == 1000, "that of no text"


def test_an_end_of_text_stops_no_continuation(folder: Path) -> None:
    """Though there are several, in config.json and generation_config.json, and greedy text begins with one."""
    subject = Subject(folder, dense=None, dtype="float32", device="cpu")
    [[first, *_]] = continued(subject, ["The quick"], 8)
    edit(folder / "config.json", eos_token_id=[2, first])
    edit(folder / "generation_config.json", eos_token_id=[2, first])
    again = Subject(folder, dense=None, dtype="float32", device="cpu")
    assert continued(again, ["The quick"], 8) == continued(subject, ["The quick"], 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float, dtype: torch.dtype) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(folder / "model.safetensors")[name].to(dtype)
    weight[3, 5] = value
    weights(folder, **{name: weight})
    with pytest.raises(DataError, match=rf"model\.safetensors: {name} holds NaN or infinity$"):
        load_folder(folder)


def test_an_overflow_is_named(folder: Path) -> None:
    name = "model.norm.weight"
    weights(folder, **{name: torch.full((64,), 1e5)})
    load_folder(folder, "bfloat16")
    with pytest.raises(DataError, match=rf"model\.safetensors: {name} overflows in float16$"):
        load_folder(folder, "float16")


def test_of_tied_names_the_head_alone_is_enough(tiny_gqa: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_gqa, tmp_path / "model")
    embedding = "model.embed_tokens.weight"
    weights(folder, **{"lm_head.weight": load_file(folder / "model.safetensors")[embedding], embedding: None})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    ids = torch.tensor([[5, 9, 200]])
    with torch.no_grad():
        assert torch.equal(load_folder(folder)[0](ids).logits, load_folder(tiny_gqa)[0](ids).logits)


def test_one_file_wins_over_an_older_save_in_shards(folder: Path) -> None:
    """As in transformers."""
    state = load_file(folder / "model.safetensors")
    save_file({name: w / 2 for name, w in state.items()}, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_as_stock(folder)
