"""GGUF files hold every weight where llama.cpp looks for it, widths layer by layer; what has no form is refused."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from bench.errors import UsageError
from bench.model.checkpoint import load_checkpoint
from bench.serve.export import export
from bench.serve.gguf import write_gguf
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


def test_a_tokenizer_that_is_not_known_is_left_out_and_told(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = type(tokenizer.backend_tokenizer.pre_tokenizer)(add_prefix_space=True)
    tokenizer.save_pretrained(tmp_path / "spm")
    for folder, why in ((tmp_path / "spm", "is no byte-level BPE"), (tmp_path, "no tokenizer.json lies beside")):
        (note,) = write_gguf(make_model(), folder, tmp_path / "model.gguf", "tiny")
        assert why in note
        fields, _ = read(tmp_path / "model.gguf")
        assert fields["tokenizer.ggml.model"] == "none"
        assert fields["llama.vocab_size"] == 300
