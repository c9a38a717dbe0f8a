"""Stand-ins: checkpoints of a model's family and kinds of files, with few and narrow blocks of random weights."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bench.families import Q
from bench.family import Family, default, of_config
from bench.model.classes import config_class, prefix_of, stock_class
from bench.model.load import dtype_of
from bench.model.random import draw
from bench.paths import METHODS
from bench.shape import Shape

LAYERS, HEADS, HEAD_DIM, VOCAB = 8, 8, 16, 1024
ENTRIES = 1000
"""Of the tokenizer, less than the vocabulary: some tokenizers add special tokens of their own."""
SHARDS = 2
GAIN = 5.0
"""Of the weights of `bench.model.random`, so that what narrow matrices give is as large as in a wide model."""
TRAINED_ON = "*/card.md"
"""The text that tokenizers are trained on: the cards of the methods that come with Leanboard."""

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
"""A chat template, whether or not the real tokenizer has one: the real plan says where it has none."""

WeightsKind = Literal["safetensors", "bin"]
TokenizerKind = Literal["sentencepiece", "bpe", "bpe+bos", "none"]


@dataclass(frozen=True)
class Layout:
    """The files that a checkpoint is kept in.

    A sentencepiece tokenizer is LLaMA's; `fast` says that tokenizer.json lies there too. `bpe` is byte-level, as those
    of SmolLM and Qwen; with `bpe+bos` each text begins with a token of its own, as Llama 3 has it.
    """

    weights: WeightsKind = "safetensors"
    tokenizer: TokenizerKind = "bpe"
    fast: bool = True
    dtype: str = "float16"


def small_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` of a model with few and narrow blocks: the same ratios of widths and of heads, all else as it is."""
    shape = Shape.of(config)
    block = shape.blocks[0]
    queries = block.heads // block.kv_heads
    kv_heads = 1 if block.kv_heads == 1 else max(2, HEADS // queries)
    heads = queries * kv_heads
    hidden = 8 * max(1, round(shape.hidden * heads * HEAD_DIM / (block.heads * shape.head_dim) / 8))
    layers = min(LAYERS, len(shape.blocks))
    small = {
        **config,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 8 * round(hidden * block.channels / shape.hidden / 8),
        "vocab_size": VOCAB,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    if hidden != heads * HEAD_DIM or "head_dim" in config:
        small["head_dim"] = HEAD_DIM
    if isinstance(kinds := config.get("layer_types"), list):
        small["layer_types"] = kinds[:layers]
    return small


def write_stand_in(folder: Path, config: Mapping[str, Any], layout: Layout, seed: int = 0) -> None:
    """Write a model of `small_config` and its tokenizer into `folder`, in the files of `layout`."""
    folder.mkdir(parents=True)
    family = of_config(config)
    fields = {"model_type": family.model_type, "architectures": [family.architecture], **config}
    content = json.dumps(fields | {"torch_dtype": layout.dtype}, indent=1)
    (folder / "config.json").write_text(content, encoding="utf-8")
    weights = {name: w.to(dtype_of(layout.dtype)) for name, w in _weights(family, fields, seed)}
    if layout.weights == "bin":
        weights |= _rotary_tables(family, Shape.of(fields))
    _write_shards(folder, weights, layout.weights)
    if layout.tokenizer == "sentencepiece":
        _write_sentencepiece(folder, layout.fast)
    elif layout.tokenizer != "none":
        _bpe(adds_bos=layout.tokenizer == "bpe+bos").save_pretrained(folder)


def _weights(family: Family, config: Mapping[str, Any], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    stock = config_class(family)(**{name: value for name, value in config.items() if name != "model_type"})
    with torch.device("meta"):
        model = stock_class(family)(stock)
    for name, parameter in model.named_parameters():
        weight = draw(name, parameter.shape, seed)
        yield name, weight * (GAIN if weight.dim() > 1 else 1.0)


def _rotary_tables(family: Family, shape: Shape) -> dict[str, torch.Tensor]:
    """What checkpoints of that time hold besides weights: each block's frequencies, which nobody reads any more."""
    table = family.rotary.rpartition(".")[2]
    attention = [family.path(i, Q).rpartition(".")[0] for i in range(len(shape.blocks))]
    return {f"{path}.{table}.inv_freq": torch.ones(shape.head_dim // 2) for path in attention}


def _write_shards(folder: Path, weights: Mapping[str, torch.Tensor], kind: WeightsKind) -> None:
    """As transformers names them: two shards with an index."""
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names, index = list(weights), dict[str, str]()
    for number in range(SHARDS):
        file = f"{stem}-{number + 1:05d}-of-{SHARDS:05d}.{kind}"
        shard = {name: weights[name] for name in names[number::SHARDS]}
        if kind == "bin":
            torch.save(shard, folder / file)
        else:
            save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = sum(weight.nbytes for weight in weights.values())
    content = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    (folder / f"{stem}.{kind}.index.json").write_text(content, encoding="utf-8")


def _text() -> Iterator[str]:
    for file in sorted(METHODS.glob(TRAINED_ON)):
        yield from file.read_text(encoding="utf-8").splitlines()


def _bpe(*, adds_bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE, so that any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        special_tokens=["<|pad|>", "<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", 1)]
        )
    names = {"bos_token": "<|begin|>"} if adds_bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=CHAT, **names)


def _write_sentencepiece(folder: Path, fast: bool) -> None:
    """LLaMA's kind: BPE over characters with bytes for those that are rare, spaces kept, a BOS before each text."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=_text(),
        model_writer=model,
        vocab_size=ENTRIES,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": f"{prefix_of(default())}Tokenizer", "add_bos_token": True, "add_eos_token": False}
    settings |= {"chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special, indent=1), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), encoding="utf-8")
    if fast:
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False).save_pretrained(folder)
