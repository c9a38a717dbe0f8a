"""Stand-ins have the family, ratios, files and tokenizer of the model that they stand in for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.catalogue import CATALOGUE
from bench.errors import UsageError
from bench.model.load import load_folder
from bench.model.stand_in import Layout, small_config, write_stand_in
from bench.rehearse.sources import source_of
from bench.shape import Shape
from tests.hub import Hub


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_ratios_are_those_of_the_model(name: str) -> None:
    config = CATALOGUE[name].config
    real, small = Shape.of(config), Shape.of(small_config(config))
    assert len(small.blocks) == 8
    assert (small.family, small.head_dim) == (real.family, 16)
    ours, theirs = small.blocks[0], real.blocks[0]
    assert ours.heads * theirs.kv_heads == theirs.heads * ours.kv_heads
    assert ours.channels / small.hidden == pytest.approx(theirs.channels / real.hidden, rel=0.1)
    assert ours.heads * small.head_dim / small.hidden == pytest.approx(
        theirs.heads * real.head_dim / real.hidden, rel=0.2
    )


IN_SAFETENSORS = [name for name in CATALOGUE if source_of(name, {}, offline=True).layout.weights == "safetensors"]


@pytest.mark.parametrize("name", IN_SAFETENSORS)
def test_a_stand_in_loads(name: str, tmp_path: Path) -> None:
    source = source_of(name, {}, offline=True)
    write_stand_in(tmp_path / "model", small_config(source.config), source.layout)
    model, tokenizer = load_folder(tmp_path / "model", "bfloat16")
    assert tokenizer is not None
    ids = tokenizer("What is kept of a model: 3 wörds?")["input_ids"]
    assert max(ids) < model.config.vocab_size
    assert bool(torch.isfinite(model(torch.tensor([ids])).logits).all())
    begins = source.layout.tokenizer in ("sentencepiece", "bpe+bos")
    assert (ids[0] == tokenizer.bos_token_id) is begins
    assert tokenizer.decode(ids, skip_special_tokens=True) == "What is kept of a model: 3 wörds?"


def test_the_same_weights_every_time(tmp_path: Path) -> None:
    config = small_config(CATALOGUE["smollm2-135m"].config)
    for folder in ("a", "b"):
        write_stand_in(tmp_path / folder, config, Layout(tokenizer="none"))
    assert names(tmp_path / "a") == names(tmp_path / "b")
    assert all((tmp_path / "b" / f.name).read_bytes() == f.read_bytes() for f in (tmp_path / "a").iterdir())


def test_vicuna_has_the_files_of_its_repository(tmp_path: Path) -> None:
    source = source_of("vicuna-7b", {}, offline=True)
    write_stand_in(tmp_path / "model", small_config(source.config), source.layout)
    shards = {f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    tokenizer = {"tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"}
    assert names(tmp_path / "model") == {"config.json", "pytorch_model.bin.index.json", *shards, *tokenizer}
    index = json.loads((tmp_path / "model" / "pytorch_model.bin.index.json").read_text())
    assert set(index["weight_map"].values()) == shards
    held: dict[str, Any] = {}
    for shard in shards:
        held |= torch.load(tmp_path / "model" / shard, weights_only=True)
    assert held.keys() == index["weight_map"].keys()
    assert {weight.dtype for name, weight in held.items() if not name.endswith("inv_freq")} == {torch.float16}
    assert sum(name.endswith("rotary_emb.inv_freq") for name in held) == 8


def test_a_folder_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    config = {"model_type": "qwen3", **small_config(CATALOGUE["llama-7b"].config), "num_key_value_heads": 2}
    write_stand_in(folder, config, Layout("bin", "bpe", dtype="bfloat16"))
    for source in (source_of(str(folder), {}, offline=True), source_of("llama-7b", {"llama-7b": folder}, offline=True)):
        assert source.layout == Layout("bin", "bpe", dtype="bfloat16")
        assert source.config["model_type"] == "qwen3"
        assert Shape.of(small_config(source.config)).blocks[0].kv_heads == 2


def test_of_a_hub_model_the_config_and_the_names_of_files_are_fetched(hub: Hub, tmp_path: Path) -> None:
    config = CATALOGUE["qwen3-8b"].config
    write_stand_in(tmp_path / "model", small_config(config), Layout("bin", dtype="bfloat16"))
    hub.add("someone/model", tmp_path / "model", "v1")
    source = source_of("someone/model@v1", {}, offline=False)
    assert source.layout == Layout("bin", dtype="bfloat16")
    assert Shape.of(source.config).family == Shape.of(config).family
    assert not any(path.endswith(".bin") for path in hub.asked)
    with pytest.raises(UsageError, match="someone/model has no commit, tag or branch 'v2'"):
        source_of("someone/model@v2", {}, offline=False)
    with pytest.raises(UsageError, match=r"someone/other: no config\.json on this machine and offline"):
        source_of("someone/other", {}, offline=True)
