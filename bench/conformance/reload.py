"""A process of its own that loads checkpoints as one without Leanboard does, and saves their logits.

Standard input has one JSON line per checkpoint, {"folder": …, "out": …}; the logits of `probe_ids` go to `out`, and a
line {"error": …} to standard output, null where all went well. Of a checkpoint is used what lies in its folder, and
transformers; Leanboard cannot be imported here.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel


def probe_ids(vocab: int) -> torch.Tensor:
    """Two rows of token ids, int64 [2, 24]."""
    return torch.randint(3, vocab, (2, 24), generator=torch.Generator().manual_seed(5))


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """The logits of `probe_ids`, float32 [2, 24, vocab]."""
    with torch.no_grad():
        logits: torch.Tensor = model(probe_ids(model.config.vocab_size)).logits.float()
    return logits


def class_in(folder: Path) -> Any:
    """What loads the checkpoint: transformers' own class, or one of the model file with the weights."""
    own = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map")
    if own is None:
        return AutoModelForCausalLM
    module, name = own["AutoModelForCausalLM"].split(".")
    sys.modules.pop(module, None)
    sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        sys.path.pop(0)


def main() -> None:
    sys.modules["bench"] = sys.modules["methods"] = None  # type: ignore[assignment]
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no reply
    for line in sys.stdin:
        order, error = json.loads(line), None
        folder = Path(order["folder"])
        try:
            model = class_in(folder).from_pretrained(folder, dtype=torch.float32)
            save_file({"logits": logits_of(model.eval())}, order["out"])
        except Exception as raised:  # loading may fail in any way; the other checkpoints go on
            error = f"{type(raised).__name__}: {raised}"
        print(json.dumps({"error": error}), file=replies, flush=True)


if __name__ == "__main__":
    main()
