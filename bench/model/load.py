"""Loading LLaMA-family checkpoints: safetensors only, no remote code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from bench.catalogue import check_checkpoint, resolve
from bench.errors import DataError, UsageError
from bench.model.lean_llama import LeanLlamaConfig, LeanLlamaForCausalLM
from bench.paths import offline

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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


def load_dense(
    id_or_path: str | Path, dtype: str | torch.dtype = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The model of a catalogue id or folder, in evaluation mode, and its tokenizer (None where it has none)."""
    return load_folder(resolve(str(id_or_path), offline=offline()).path, dtype, device)


def load_folder(
    folder: Path, dtype: str | torch.dtype = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a folder of config.json, *.safetensors and, where there is one, the tokenizer.

    Weights are copied out of the memory-mapped file, one at a time: where a matrix lies in a file decides how fast a
    CPU reads it (8 % on one machine), which is no property of the model.

    Raises:
        UsageError: not a LLaMA-family model, or an unknown dtype.
        DataError: a file is missing or damaged.
    """
    config, _ = check_checkpoint(folder)
    try:
        model = _class_of(config["model_type"]).from_pretrained(
            folder, dtype=dtype_of(dtype), use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: the model cannot be loaded ({str(error).splitlines()[0]})") from error
    if device == "cpu":
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model.to(device).eval().requires_grad_(False), load_tokenizer(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a checkpoint; None where there is none."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the tokenizer cannot be loaded ({str(error).splitlines()[0]})") from error


def _class_of(model_type: str) -> type[PreTrainedModel]:
    return LeanLlamaForCausalLM if model_type == LeanLlamaConfig.model_type else LlamaForCausalLM
