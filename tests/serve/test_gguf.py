"""GGUF files hold every weight where llama.cpp looks for it, widths layer by layer; what has no form is refused."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from bench.errors import UsageError
from bench.family import known
from bench.model.checkpoint import load_checkpoint
from bench.model.layers import shape_of, window_of
from bench.serve.export import export
from bench.serve.gguf import write_gguf
from tests.artefacts import LLAMA3, make, uneven
from tests.serve.board import row
from tests.tiny import make_model, make_tokenizer


def read(file: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor.data for tensor in reader.tensors}


def test_widths_differ_from_layer_to_layer(tmp_path: Path) -> None:
    found = row(tmp_path, "uneven")
    assert export(found, tmp_path / "out", dtype=None, form="gguf") == []
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"README.md", "model.gguf"}
    assert "llama-cli -m DIR/model.gguf" in (tmp_path / "out" / "README.md").read_text()
    fields, tensors = read(tmp_path / "out" / "model.gguf")
    assert fields["general.architecture"] == "deci"
    assert fields["deci.attention.head_count"] == [4, 2, 2, 4]
    assert fields["deci.attention.head_count_kv"] == [2, 1, 2, 2]
    assert fields["deci.feed_forward_length"] == [96, 50, 77, 3]
    assert fields["deci.attention.key_length"] == fields["deci.rope.dimension_count"] == 32
    state = load_checkpoint(found.folder)[0].state_dict()
    assert "output.weight" not in tensors  # tied
    assert len(tensors) == len(state) - 1
    assert np.array_equal(tensors["blk.2.ffn_down.weight"], state["model.layers.2.mlp.down_proj.weight"].numpy())
    query = state["model.layers.1.self_attn.q_proj.weight"].reshape(2, 32, 128)
    halves = torch.stack((query[:, :16], query[:, 16:]), 2).reshape(64, 128)
    assert np.array_equal(tensors["blk.1.attn_q.weight"], halves.numpy())


def test_uniform_models_are_plain_llama_and_carry_the_tokenizer(tmp_path: Path) -> None:
    export(row(tmp_path, "uniform", "mha"), tmp_path / "out", dtype="bfloat16", form="gguf")
    fields, tensors = read(tmp_path / "out" / "model.gguf")
    assert fields["general.architecture"] == "llama"
    assert (fields["llama.attention.head_count"], fields["llama.feed_forward_length"]) == (2, 64)
    assert tensors["output.weight"].dtype == np.uint8
    assert tensors["output_norm.weight"].dtype == np.float32
    vocabulary = make_tokenizer().get_vocab()
    assert fields["tokenizer.ggml.tokens"] == sorted(vocabulary, key=vocabulary.__getitem__)
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (1, 2)


@pytest.mark.parametrize(("kind", "why"), [("factored", "low-rank factors"), ("bottleneck", "bottleneck adapters")])
def test_what_llama_cpp_cannot_hold_is_one_sentence(kind: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"model\.gguf: {why} have no place in GGUF; use --format hf"):
        export(row(tmp_path, kind), tmp_path / "out", dtype=None, form="gguf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "shape", "architecture"),
    [
        ("uniform", "mistral-mha", "llama"),
        ("uneven", "mistral-gqa", "deci"),
        ("merged", "qwen2-gqa", "qwen2"),
        ("uniform", "qwen2-gqa", "deci"),  # llama.cpp's qwen2 has heads of hidden/heads dimensions alone
        ("uneven", "qwen2-mha", "deci"),
        ("uniform", "qwen3-gqa", "qwen3"),
    ],
)
def test_every_weight_of_every_family_has_its_place(kind: str, shape: str, architecture: str, tmp_path: Path) -> None:
    model, _ = load_checkpoint(make(kind, shape, tmp_path / "made"))
    notes = write_gguf(model, tmp_path / "made", tmp_path / "model.gguf", "tiny")
    fields, tensors = read(tmp_path / "model.gguf")
    assert fields["general.architecture"] == architecture
    assert fields[f"{architecture}.attention.key_length"] == shape_of(model).head_dim
    assert fields[f"{architecture}.context_length"] == (window_of(model) or 512)
    assert any("attention window of 16 tokens" in note for note in notes) == (window_of(model) is not None)
    assert sum(tensor.size for tensor in tensors.values()) == shape_of(model).params()


def test_biases_of_queries_are_woven_as_their_rows_are(tmp_path: Path) -> None:
    model = make_model(family="qwen2", kv_heads=2, hidden=64, head_dim=32)
    write_gguf(model, tmp_path, tmp_path / "model.gguf", "tiny")
    fields, tensors = read(tmp_path / "model.gguf")
    assert fields["general.architecture"] == "deci"
    bias = model.state_dict()["model.layers.1.self_attn.k_proj.bias"]
    assert tensors["blk.1.attn_k.bias"][:4].tolist() == bias[[0, 16, 1, 17]].tolist()
    assert np.array_equal(tensors["blk.1.attn_v.bias"], model.state_dict()["model.layers.1.self_attn.v_proj.bias"])


def test_llama_3_has_a_factor_for_each_rotary_frequency(tmp_path: Path) -> None:
    model = make_model(head_dim=32, rope_parameters=LLAMA3)
    write_gguf(model, tmp_path, tmp_path / "model.gguf", "tiny")
    factors = read(tmp_path / "model.gguf")[1]["rope_freqs.weight"]
    lengths = (
        2 * np.pi * 10000.0 ** (np.arange(16) / 16)
    )  # tokens in a turn; 32 / 4 and fewer stay, above 32 / 1 all is scaled
    smooth = (32 / lengths - 1) / (4 - 1)
    between = 1 / ((1 - smooth) / 8 + smooth)
    expected = np.where(lengths < 8, 1.0, np.where(lengths > 32, 8.0, between))
    assert np.allclose(factors, expected, rtol=1e-5)
    assert len({*np.round(factors, 3)}) > 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"family": "qwen3", "uneven": True}, "'qwen3' has no place for layers of different widths"),
        (
            {"family": "qwen3", "attention_bias": True},
            "'qwen3' has no place for biases on q_proj, k_proj, v_proj, o_proj",
        ),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "of type 'linear' are not"),
        ({"family": "qwen3", "rope_parameters": LLAMA3}, "'qwen3' has no place for rotary embeddings of type 'llama3'"),
    ],
)
def test_a_family_that_has_no_place_for_it_is_one_sentence(fields: dict[str, Any], why: str, tmp_path: Path) -> None:
    is_uneven = fields.pop("uneven", False)
    model = make_model(**fields)
    with pytest.raises(UsageError, match=rf"model\.gguf: .*{why}.*; use --format hf"):
        write_gguf(uneven(model) if is_uneven else model, tmp_path, tmp_path / "model.gguf", "tiny")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_tokenizers_of_a_family_are_known_by_what_they_split_by(family: str, tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    [(name, words)] = known()[family].splits.items()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    content["normalizer"] = {"type": "NFC"} if name == "qwen2" else None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    notes = write_gguf(make_model(family=family), tmp_path, tmp_path / "model.gguf", "tiny")
    assert read(tmp_path / "model.gguf")[0]["tokenizer.ggml.pre"] == name
    assert ("NFC" in "".join(notes)) == (name == "qwen2")


def test_a_tokenizer_that_is_not_known_is_left_out_and_told(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = type(tokenizer.backend_tokenizer.pre_tokenizer)(add_prefix_space=True)
    tokenizer.save_pretrained(tmp_path / "spm")
    for folder, why in (
        (tmp_path / "spm", "is no byte-level BPE"),
        (tmp_path, "no tokenizer.json lies with the checkpoint"),
    ):
        (note,) = write_gguf(make_model(), folder, tmp_path / "model.gguf", "tiny")
        assert why in note
        fields, _ = read(tmp_path / "model.gguf")
        assert fields["tokenizer.ggml.model"] == "none"
        assert fields["llama.vocab_size"] == 300
