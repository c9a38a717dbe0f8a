"""A checkpoint as one GGUF file, as llama.cpp reads it.

Uniform models have the architecture `llama`. Widths that differ from layer to layer need `deci`, of which llama.cpp
reads heads, key/value heads and MLP channels layer by layer, and which otherwise computes what LLaMA does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from bench.errors import UsageError
from bench.shape import Shape

FILE_TYPES = {
    torch.float32: gguf.LlamaFileType.ALL_F32,
    torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
}
BYTE_LEVEL = {"type": "ByteLevel", "use_regex": True}
PRE_TOKENIZERS = {"gpt-2": [BYTE_LEVEL], "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}
"""By llama.cpp's name: the steps of tokenizer.json's pre-tokenizer that it stands for."""


def why_not(config: dict[str, Any]) -> str | None:
    """Why llama.cpp could not read a model of this config.json; None where it can."""
    if config.get("factors"):
        return "low-rank factors have no place in GGUF"
    if config.get("bottleneck"):
        return "bottleneck adapters have no place in GGUF"
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        return f"rotary embeddings of type '{rope['rope_type']}' are not written to GGUF here"
    if Shape.of(config).head_dim % 2:
        return "heads of an odd number of dimensions cannot be rotated in pairs"
    return None


def write_gguf(model: PreTrainedModel, tokenizer: Path, file: Path, name: str) -> list[str]:
    """Write `model`, in its own precision (norms in float32), with the tokenizer that lies in a folder.

    Returns notes on what llama.cpp will lack.

    Raises:
        UsageError: the model has no form in GGUF.
    """
    config = model.config.to_dict()
    if (why := why_not(config)) is not None:
        raise UsageError(f"{file}: {why}; use --format hf")
    shape = Shape.of(config)
    is_uniform = len(set(shape.blocks)) == 1
    writer = gguf.GGUFWriter(file, "llama" if is_uniform else "deci")
    _describe(writer, model, shape, name)
    notes = _add_tokenizer(writer, tokenizer, shape.vocab)
    _add_weights(writer, model, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return notes


def _describe(writer: gguf.GGUFWriter, model: PreTrainedModel, shape: Shape, name: str) -> None:
    """The widths: one number where all layers agree, else one for each."""
    config = model.config
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[model.dtype])
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(len(shape.blocks))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(shape.head_dim)
    widths = [(b.heads, b.kv_heads, b.channels) for b in shape.blocks]
    adders = (writer.add_head_count, writer.add_head_count_kv, writer.add_feed_forward_length)
    for add, column in zip(adders, zip(*widths, strict=True), strict=True):
        add(column[0] if len(set(widths)) == 1 else list(column))


def _add_weights(writer: gguf.GGUFWriter, model: PreTrainedModel, shape: Shape) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, len(shape.blocks))
    skipped = {"lm_head.weight"} if shape.tied else set()
    for name, weight in model.state_dict().items():
        if name in skipped:
            continue
        if ".q_proj." in name or ".k_proj." in name:
            block = shape.blocks[int(name.split(".")[2])]
            weight = interleaved(weight, block.heads if ".q_proj." in name else block.kv_heads)
        data = weight.detach().cpu().contiguous()
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if data.dim() == 1 or data.dtype == torch.float32:
            writer.add_tensor(target, data.float().numpy())
        elif data.dtype == torch.bfloat16:
            raw = data.view(torch.uint16).numpy()
            writer.add_tensor(target, raw.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(target, data.numpy())


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head in the order in which llama.cpp rotates them: pairs side by side, not half a head apart."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocab: int) -> list[str]:
    """A byte-level BPE, whole; of any other tokenizer nothing, with a note that says so."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    pre = _pre_tokenizer(content)
    if pre is None:
        writer.add_tokenizer_model("none")
        no_bpe = "its own is no byte-level BPE that llama.cpp has a name for"
        why = no_bpe if content else "no tokenizer.json lies beside the checkpoint"
        return [f"the file holds no tokenizer ({why}): llama.cpp reads and writes only token ids"]
    tokens = {i: (token, gguf.TokenType.NORMAL) for token, i in content["model"]["vocab"].items()}
    for added in content.get("added_tokens", []):
        kind_ = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind_)
    listed = [tokens.get(i, (f"[PAD{i}]", gguf.TokenType.UNUSED)) for i in range(vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in listed])
    writer.add_token_types([type_ for _, type_ in listed])
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocab).add_to_gguf(writer, quiet=True)
    return []


def _pre_tokenizer(content: dict[str, Any]) -> str | None:
    """What llama.cpp calls the pre-tokenizer of a tokenizer.json; None where it is not one of `PRE_TOKENIZERS`."""
    if content.get("model", {}).get("type") != "BPE" or content.get("normalizer") is not None:
        return None
    pre = content.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    for name, wanted in PRE_TOKENIZERS.items():
        pairs = zip(steps, wanted, strict=False)
        if len(steps) == len(wanted) and all(want.items() <= step.items() for step, want in pairs):
            return name if not any(step.get("add_prefix_space") for step in steps) else None
    return None
