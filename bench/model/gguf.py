"""GGUF to safetensors: `python -m bench.model.gguf FILE FOLDER` writes a float32 checkpoint with its tokenizer.

A process of its own, because it loads torch and needs several times the model's memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from bench.errors import DataError

PROBE = "The harness measures what is shipped, not what was meant to be shipped."


def convert(source: Path, folder: Path) -> None:
    """Read the GGUF file `source`, dequantise it to float32 and save model and tokenizer in `folder`.

    What was saved is loaded again and must give the logits of the GGUF model on a fixed sentence.

    Raises:
        DataError: not a readable GGUF file of a LLaMA model, or the saved copy gives other logits.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{source}: cannot be read as a GGUF model ({first_line(error)})") from error
    if not isinstance(model, LlamaForCausalLM):
        raise DataError(f"{source}: holds a {type(model).__name__}, not a LLaMA")
    ids = torch.tensor([tokenizer(PROBE).input_ids])
    expected = _logits(model, ids)
    _plain_copy(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    saved = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    saved_ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(PROBE).input_ids
    if saved_ids != ids[0].tolist() or not torch.equal(_logits(saved, ids), expected):
        raise DataError(f"{source}: the converted checkpoint does not give the logits of the original")


def _plain_copy(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same weights under a config without quantisation (a model read from GGUF refuses to be saved)."""
    config = model.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path"):
        config.pop(name, None)
    copy = LlamaForCausalLM(LlamaConfig(**config))
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        bos_token_id=config["bos_token_id"], eos_token_id=config["eos_token_id"], pad_token_id=config["pad_token_id"]
    )
    return copy.eval()


def _logits(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(ids).logits


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except DataError as error:
        sys.exit(str(error))
