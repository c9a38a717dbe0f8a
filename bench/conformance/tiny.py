"""Tiny random models, made on the spot: real architectures, a real tokenizer, a CPU second each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bench.families import DEFAULT
from bench.family import Family, known
from bench.model.classes import stock_class
from bench.model.layers import family_of, shape_of
from bench.model.surgery import prune
from bench.shape import BlockKept, Kept

TEXT = (
    "The quick brown fox jumps over the lazy dog. A model is pruned, its heads and channels are removed, and what is "
    "left is measured again. Question: what is kept? Answer: the parts that matter. no yes 0 1 2 3 4 5 6 7 8 9"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 entries, so that any text can be encoded."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=512,
    )


@cache
def _trained() -> str:
    """The tokenizer as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=299,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])  # which Qwen2's tokenizer has, and would add
    trained: str = tokenizer.to_str()
    return trained


def make_model(
    *,
    family: str = DEFAULT,
    heads: int = 4,
    kv_heads: int = 4,
    layers: int = 4,
    hidden: int = 64,
    channels: int = 96,
    tied: bool = False,
    vocab: int = 300,
    seed: int = 0,
    **fields: Any,
) -> PreTrainedModel:
    """A model with weights drawn from `seed` (the global generator is left seeded); `fields` of its config."""
    torch.manual_seed(seed)
    stock = stock_class(known()[family])
    config = stock.config_class(
        **{
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": channels,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": hidden // heads,
            "max_position_embeddings": 512,
            "tie_word_embeddings": tied,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.15,
            **fields,
        }
    )
    model = stock(config).eval()
    _draw_vectors(model)
    return model


def variants(family: Family) -> dict[str, dict[str, Any]]:
    """Arguments of `make_model` for two models of a family, "mha" and "gqa", with all in them that its table tells.

    A window is shorter than the texts that models are tried on, a head dimension not that of its default. In "gqa" all
    biases are there, the head is tied, and positions are scaled.
    """
    fields: dict[str, Any] = {"family": family.model_type}
    if family.has_window:
        fields |= {"sliding_window": 12, "use_sliding_window": True, "max_window_layers": 0}
    if "head_dim" in family.defaults:
        fields |= {"head_dim": 24}
    biases = {name: True for name in family.biases.values() if isinstance(name, str)}
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    return {"mha": fields, "gqa": {**fields, **biases, "kv_heads": 2, "tied": True, "rope_parameters": scaled}}


def _draw_vectors(model: PreTrainedModel) -> None:
    """Biases start at 0 and norms of heads at 1, where a mistake in their slicing would not show."""
    family = family_of(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.normal_(parameter, std=0.1)
        elif name.removesuffix(".weight").endswith(tuple(family.head_norms.values())):
            nn.init.uniform_(parameter, 0.5, 1.5)


def make_checkpoint(folder: Path, **shape: Any) -> Path:
    """Save a tiny random model and its tokenizer in `folder`, as a user's checkpoint would lie there."""
    make_model(**shape).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_uneven_checkpoint(folder: Path, **shape: Any) -> Path:
    """The same, with layers that differ: every second one has lost a key/value head and some channels."""
    model = make_model(**shape)
    blocks = dict(shape_of(model).keep_all().blocks)
    for i in list(blocks)[::2]:
        block = shape_of(model).blocks[i]
        n_rep = block.heads // block.kv_heads
        blocks[i] = BlockKept(blocks[i].heads[: block.heads - n_rep], blocks[i].channels[: block.channels - 16 - i])
    prune(model, Kept(blocks)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
