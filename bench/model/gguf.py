"""GGUF to safetensors: `python -m bench.model.gguf FILE FOLDER` writes a float32 checkpoint with its tokenizer.

A process of its own, because it loads torch and needs about one and a half times the memory of the float32 weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from bench.checkpoint_files import check_checkpoint
from bench.errors import DataError, LeanboardError, first_line

PROBE = "The harness measures what is shipped, not what was meant to be shipped."
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def convert(source: Path, folder: Path) -> None:
    """Read the GGUF file `source`, dequantise it to float32 and save model and tokenizer in `folder`.

    What was saved is loaded again and must give the token ids and the logits of the GGUF model on a fixed sentence.

    Raises:
        DataError: not a readable GGUF file of a language model, no space to save it, or the saved copy differs.
        UsageError: a model of a family that is not known.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{source}: cannot be read as a GGUF model ({first_line(error)})") from error
    if loading["missing_keys"]:
        raise DataError(f"{source}: cannot be read as a GGUF model (it holds no {min(loading['missing_keys'])})")
    ids = tokenizer(PROBE).input_ids
    expected = _logits(model, ids)
    try:
        _save(model, folder)
        tokenizer.save_pretrained(folder)
        saved_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        saved_tokenizer.save_pretrained(folder)  # its class may set what GGUF has no field for, such as a normalizer
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be written ({first_line(error)})") from error
    del model  # so that one copy of the weights is in memory at a time
    check_checkpoint(folder)
    saved = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    if saved_tokenizer(PROBE).input_ids != ids or not torch.equal(_logits(saved, ids), expected):
        raise DataError(f"{source}: the converted checkpoint does not give the logits of the original")


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Save the weights under a config without quantisation (a model read from GGUF refuses to be saved)."""
    config = model.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path"):
        config.pop(name, None)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(type(model.config)(**config))
    empty.generation_config = GenerationConfig(**{name: config.get(name) for name in TOKENS})
    empty.save_pretrained(folder, state_dict=model.state_dict())


def _logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except LeanboardError as error:
        sys.exit(str(error))
