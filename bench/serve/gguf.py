"""A checkpoint as one GGUF file, as llama.cpp reads it.

The table of its family lists the architectures of llama.cpp that compute the same; the first that can hold the model is
taken. Widths that differ from layer to layer need `deci`, of which llama.cpp reads heads, key/value heads and MLP
channels layer by layer, and which otherwise computes what LLaMA does, with biases or without.
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
from bench.families import K, Q
from bench.family import Family, Gguf
from bench.shape import Shape

FILE_TYPES = {
    torch.float32: gguf.LlamaFileType.ALL_F32,
    torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
}
BYTE_LEVEL = {"type": "ByteLevel", "use_regex": True}
PRE_TOKENIZERS = {"gpt-2": [BYTE_LEVEL], "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}
"""By llama.cpp's name: the steps of tokenizer.json's pre-tokenizer that it stands for; families have more."""

FACTORS_NEEDED = "llama3"
"""The type of rotary embedding that scales every frequency by a factor of its own."""


def form_of(config: dict[str, Any]) -> Gguf:
    """The architecture of llama.cpp that holds a model of this config.json.

    Raises:
        UsageError: none does; the sentence says why.
    """
    shape = Shape.of(config)
    rope = _rope_type(config)
    if shape.factors:
        raise UsageError("low-rank factors have no place in GGUF")
    if shape.bottleneck:
        raise UsageError("bottleneck adapters have no place in GGUF")
    if rope not in ("default", FACTORS_NEEDED):
        raise UsageError(f"rotary embeddings of type '{rope}' are not written to GGUF here")
    if not shape.family.gguf:
        raise UsageError(f"the table of family {shape.family.model_type} names no architecture of llama.cpp")
    lacks = [_lack(form, shape, rope) for form in shape.family.gguf]
    for form, lack in zip(shape.family.gguf, lacks, strict=True):
        if lack is None:
            return form
    raise UsageError(" and ".join(filter(None, lacks)))


def _lack(form: Gguf, shape: Shape, rope: str) -> str | None:
    """What of a model an architecture of llama.cpp cannot hold; None where it holds all."""
    if len(set(shape.blocks)) > 1 and not form.uneven:
        what = "layers of different widths"
    elif form.derives_head_dim and shape.hidden != shape.blocks[0].heads * shape.head_dim:
        what = "heads whose width is not that of the hidden state divided by their number"
    elif without := [name for name in shape.biased if name not in form.biases]:
        what = f"biases on {', '.join(without)}"
    elif rope == FACTORS_NEEDED and not form.rope_factors:
        what = f"rotary embeddings of type '{rope}'"
    else:
        return None
    return f"llama.cpp's architecture '{form.architecture}' has no place for {what}"


def _rope_type(config: dict[str, Any]) -> str:
    found: str = (config.get("rope_parameters") or {}).get("rope_type", "default")
    return found


def write_gguf(model: PreTrainedModel, tokenizer: Path, file: Path, name: str) -> list[str]:
    """Write `model`, in its own precision (vectors in float32), with the tokenizer that lies in a folder.

    Returns notes on what llama.cpp will lack.

    Raises:
        UsageError: the model has no form in GGUF.
    """
    config = model.config.to_dict()
    try:
        form = form_of(config)
    except UsageError as error:
        raise UsageError(f"{file}: {error}; use --format hf") from None
    shape = Shape.of(config)
    writer = gguf.GGUFWriter(file, form.architecture)
    notes = _describe(writer, model, shape, name)
    notes += _add_tokenizer(writer, tokenizer, shape)
    _add_weights(writer, model, shape, form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return notes


def _describe(writer: gguf.GGUFWriter, model: PreTrainedModel, shape: Shape, name: str) -> list[str]:
    """The widths, one number where all layers agree, else one for each; the context, which a window bounds."""
    config = model.config
    window, context = shape.family.window(config.to_dict()), config.max_position_embeddings
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[model.dtype])
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(min(context, window or context))
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(len(shape.blocks))
    writer.add_layer_norm_rms_eps(getattr(config, shape.family.epsilon))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(shape.head_dim)
    widths = [(b.heads, b.kv_heads, b.channels) for b in shape.blocks]
    adders = (writer.add_head_count, writer.add_head_count_kv, writer.add_feed_forward_length)
    for add, column in zip(adders, zip(*widths, strict=True), strict=True):
        add(column[0] if len(set(widths)) == 1 else list(column))
    if window is None or window >= context:
        return []
    return [f"GGUF has no place for the attention window of {window} tokens, so the file gives that as its context"]


def _add_weights(writer: gguf.GGUFWriter, model: PreTrainedModel, shape: Shape, form: Gguf) -> None:
    family = shape.family
    [architecture] = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == form.architecture]
    names = gguf.get_tensor_name_map(architecture, len(shape.blocks))
    skipped = {f"{family.head}.weight"} if shape.tied else set()
    heads = {family.path(i, Q): block.heads for i, block in enumerate(shape.blocks)}
    heads |= {family.path(i, K): block.kv_heads for i, block in enumerate(shape.blocks)}
    for name, weight in model.state_dict().items():
        if name in skipped:
            continue
        if form.interleaved and (module := name.rpartition(".")[0]) in heads:
            weight = interleaved(weight, heads[module])
        data = weight.detach().cpu().contiguous()
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if data.dim() == 1 or data.dtype == torch.float32:
            writer.add_tensor(target, data.float().numpy())
        elif data.dtype == torch.bfloat16:
            raw = data.view(torch.uint16).numpy()
            writer.add_tensor(target, raw.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(target, data.numpy())
    if _rope_type(model.config.to_dict()) == FACTORS_NEEDED:
        writer.add_tensor(f"{names.get_name('rope_freqs')}.weight", rope_factors(model, shape).numpy())


def rope_factors(model: PreTrainedModel, shape: Shape) -> torch.Tensor:
    """What llama.cpp divides each rotary frequency by, float32 [head_dim / 2]."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
    plain = 1.0 / model.config.rope_parameters["rope_theta"] ** exponents
    return plain / model.get_submodule(shape.family.rotary).inv_freq.float().cpu()


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head in the order in which llama.cpp rotates them: pairs side by side, not half a head apart."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, shape: Shape) -> list[str]:
    """A byte-level BPE, whole; of any other tokenizer nothing, with a note that says so."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    pre = _pre_tokenizer(content, shape.family)
    if pre is None:
        writer.add_tokenizer_model("none")
        no_bpe = "its own is no byte-level BPE that llama.cpp has a name for"
        why = no_bpe if content else "no tokenizer.json lies with the checkpoint"
        return [f"the file holds no tokenizer ({why}): llama.cpp reads and writes only token ids"]
    tokens = {i: (token, gguf.TokenType.NORMAL) for token, i in content["model"]["vocab"].items()}
    for added in content.get("added_tokens", []):
        kind_ = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind_)
    listed = [tokens.get(i, (f"[PAD{i}]", gguf.TokenType.UNUSED)) for i in range(shape.vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in listed])
    writer.add_token_types([type_ for _, type_ in listed])
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=shape.vocab).add_to_gguf(writer, quiet=True)
    if content.get("normalizer") is None:
        return []
    return ["llama.cpp does not normalise text to Unicode's form NFC before it looks for tokens, as the tokenizer does"]


def _pre_tokenizer(content: dict[str, Any], family: Family) -> str | None:
    """What llama.cpp calls the pre-tokenizer of a tokenizer.json; None where no name for it is known."""
    if content.get("model", {}).get("type") != "BPE" or content.get("normalizer") not in (None, {"type": "NFC"}):
        return None
    pre = content.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    for name, wanted in (PRE_TOKENIZERS | {name: _split_by(words) for name, words in family.splits.items()}).items():
        pairs = zip(steps, wanted, strict=False)
        if len(steps) == len(wanted) and all(want.items() <= step.items() for step, want in pairs):
            return name if not any(step.get("add_prefix_space") for step in steps) else None
    return None


def _split_by(words: str) -> list[dict[str, Any]]:
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    return [split, {"type": "ByteLevel", "use_regex": False}]
