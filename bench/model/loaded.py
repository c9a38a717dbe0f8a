"""A model that is already in memory, as a checkpoint in the cache: what is compressed or measured is what was saved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.checkpoint_files import BOOKKEEPING, tokenizer_fingerprint
from bench.data.files import locked, replacing
from bench.errors import UsageError
from bench.family import of_config
from bench.model.load import DTYPES
from bench.paths import cache_dir


def save_loaded(model: object, tokenizer: PreTrainedTokenizerBase | None) -> Path:
    """The folder of the cache that holds `model` in its own dtype, written unless it is there; `model` stays as it is.

    Its name is a hash of the weights, of the config and of the tokenizer's files.

    Raises:
        UsageError: not a causal language model of a known family with plain weights in memory; or the disk refuses.
    """
    checked = _checked(model)
    folder = cache_dir() / "models" / f"loaded-{_digest(checked, tokenizer)}"
    with locked(folder):
        if not folder.is_dir():
            with replacing(folder) as new:
                _save(checked, new)
                if tokenizer is not None:
                    tokenizer.save_pretrained(new)
    return folder


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Save `model`; transformers notes in the config how, which is taken back."""
    before = dict(model.config.__dict__)
    try:
        model.save_pretrained(folder, max_shard_size="4GB")
    finally:
        model.config.__dict__.clear()
        model.config.__dict__.update(before)


def _checked(model: object) -> PreTrainedModel:
    if not isinstance(model, PreTrainedModel):
        hint = "; merge its adapter first (merge_and_unload)" if hasattr(model, "merge_and_unload") else ""
        raise UsageError(f"model: must be a name, a folder or a transformers model, not {type(model).__name__}{hint}")
    of_config(model.config.to_dict(), "model")
    if model.get_output_embeddings() is None:
        raise UsageError(f"model: {type(model).__name__} has no language-model head")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UsageError("model: has adapters that are not merged into its weights")
    if getattr(model.config, "quantization_config", None) is not None:
        raise UsageError("model: its weights are quantised, and only float32, float16 and bfloat16 are supported")
    for name, weight in model.named_parameters():
        if weight.is_meta:
            raise UsageError(f"model: {name} is not in memory (it is on the meta device, or offloaded)")
        if weight.dtype not in DTYPES.values():
            raise UsageError(f"model: {name} is {weight.dtype}, and only float32, float16 and bfloat16 are supported")
    return model


def _digest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """32 hex digits over everything that makes the model compute what it does."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in BOOKKEEPING}
    content = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        content.update(f"{name}|{weight.dtype}|{tuple(weight.shape)}".encode())
        content.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    if tokenizer is not None:
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            content.update(tokenizer_fingerprint(Path(folder)).encode())
    return content.hexdigest()[:32]
