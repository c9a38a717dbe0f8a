"""Loading checkpoints of the known families: safetensors only, no remote code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from bench.checkpoint_files import check_checkpoint
from bench.errors import DataError, UsageError, first_line
from bench.family import Family, of_config
from bench.model.classes import class_of
from bench.model.place import Placement, connect, place, room_of
from bench.shape import Shape

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase | None]
"""A model in evaluation mode, and its tokenizer (None where there is none)."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "num_hidden_layers",
)


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name such as 'float32'.

    Raises:
        UsageError: the name is not float32, float16 or bfloat16.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise UsageError(f"dtype '{name}' is not known; use {', '.join(DTYPES)}")
    return DTYPES[name]


def load_folder(
    folder: Path, dtype: str | torch.dtype = "float32", device: str = "cpu", placement: Placement | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a folder of config.json, *.safetensors and, where there is one, the tokenizer.

    On `cuda` a model that the first GPU does not hold is spread over all, and over the CPU's memory
    (`bench.model.place`); `placement` says otherwise.

    Weights are copied out of the memory-mapped files one at a time, so loading takes no more memory than the model. A
    mapped matrix would be read faster or slower by its place in the file (8 % on one machine).

    Raises:
        UsageError: of no known family, or an unknown dtype.
        DataError: a file is missing or damaged, weights are missing, too many, of another size or not finite, or the
            tokenizer has ids that the model has no embedding for.
    """
    found, files = check_checkpoint(folder)
    wanted = dtype_of(dtype)
    _check_counts(found, files, folder)
    try:
        family = of_config(found)
        placement = placement or place(Shape.of(found), wanted.itemsize, room_of(device))
        where = placement or Placement(device)
        model = _empty(class_of(family, found["model_type"]), family, folder, wanted)
        _fill(model, family, {name: w for file in files for name, w in _weights(file, wanted, where, family)})
        model.get_submodule(family.rotary).to(where.first)
        connect(model)
    except DataError:
        raise
    except Exception as error:  # a config can be wrong in any way
        reason = first_line(error)
        raise DataError(f"{folder}: the model cannot be loaded ({reason})") from error
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, model.config.vocab_size, folder)
    return model.eval().requires_grad_(False), tokenizer


def _check_counts(config: Mapping[str, Any], files: Sequence[Path], folder: Path) -> None:
    """No width of a model is larger than the count of its numbers, nor its depth than that of its weights.

    Building what a wrong config.json asks for could take all memory, or never end.
    """
    numbers = weights = 0
    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                    weights += 1
                    numbers += prod(opened.get_slice(name).get_shape())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    for field, most in {**dict.fromkeys(WIDTHS, numbers), "num_hidden_layers": weights}.items():
        value = config.get(field)
        if isinstance(value, int) and value > most:
            raise DataError(f"{folder / 'config.json'}: {field}: {value} is more than the weights hold")


def _empty(cls: type[PreTrainedModel], family: Family, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a folder's config.json, without weights."""
    config = cls.config_class.from_pretrained(folder, local_files_only=True)
    config.dtype = dtype
    with torch.device("meta"):
        model = cls(config)
    rotary = type(model.get_submodule(family.rotary))
    model.set_submodule(family.rotary, rotary(config=config.per_layer_config[0]))  # reads widths, which may differ
    if (folder / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _weights(file: Path, dtype: torch.dtype, where: Placement, family: Family) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and a copy of each weight; the file is mapped anew for each, so that no more than that stays in memory."""
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
    for name in names:
        with safe_open(file, framework="pt") as opened:
            stored = opened.get_tensor(name)
            weight = stored.to(where.device_of(name, family), dtype, copy=True)
        if not _is_finite(weight):
            why = f"overflows in {dtype}".replace("torch.", "") if _is_finite(stored) else "holds NaN or infinity"
            raise DataError(f"{file}: {name} {why}")
        yield name, weight


def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all numbers are; least and largest say it without memory for each."""
    return not weight.numel() or all(bool(end.isfinite()) for end in torch.aminmax(weight))


def _fill(model: PreTrainedModel, family: Family, state: dict[str, torch.Tensor]) -> None:
    """Give `model` its weights; a tied head is the embedding, and the rotary tables of old checkpoints are left out.

    Raises:
        ValueError: weights are missing, too many or of another size.
    """
    tied = {f"{family.head}.weight"} if model.config.tie_word_embeddings else set()
    tables = f"{family.rotary.rpartition('.')[2]}.inv_freq"
    for head in tied & state.keys():  # of two shared names, some files keep the head's alone
        state.setdefault(f"{family.embedding}.weight", state[head])
    state = {name: w for name, w in state.items() if not name.endswith(tables) and name not in tied}
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items() if name not in tied}
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise ValueError(f"{name} is missing")
        if name not in expected:
            raise ValueError(f"{name} has no place in the model")
        if tuple(state[name].shape) != expected[name]:
            raise ValueError(f"{name} is {list(state[name].shape)} and not {list(expected[name])}, as config.json says")
    model.load_state_dict(state, assign=True, strict=not tied)
    model.tie_weights()


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase | None, size: int, folder: Path) -> None:
    """No text may come to an id without an embedding; a token for padding, which no text has, may have one."""
    known, padding = ({}, None) if tokenizer is None else (tokenizer.get_vocab(), tokenizer.pad_token)
    beyond = sorted((i, token) for token, i in known.items() if i >= size and token != padding)
    if beyond:
        raise DataError(
            f"{folder}: tokenizer: {len(beyond)} tokens, the first '{beyond[0][1]}' with id {beyond[0][0]}, are beyond "
            f"config.json's vocab_size of {size}"
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint; None where there is none."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its files can be wrong in any way
        reason = first_line(error)
        raise DataError(f"{folder}: the tokenizer cannot be loaded ({reason})") from error
