"""A process of its own that loads checkpoints and saves their logits: `python -m bench.conformance.reload`.

Standard input has one JSON line per checkpoint, {"folder": …, "out": …}; the logits of `probe_ids` go to `out`. It is
loaded as the README tells users to: `import bench.model`, then transformers' `AutoModelForCausalLM`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import bench.model  # noqa: F401  registers the lean classes


def probe_ids(vocab: int) -> torch.Tensor:
    """Two rows of token ids, int64 [2, 24]."""
    return torch.randint(3, vocab, (2, 24), generator=torch.Generator().manual_seed(5))


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """The logits of `probe_ids`, float32 [2, 24, vocab]."""
    with torch.no_grad():
        logits: torch.Tensor = model(probe_ids(model.config.vocab_size)).logits.float()
    return logits


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        model = AutoModelForCausalLM.from_pretrained(Path(order["folder"]), dtype=torch.float32)
        save_file({"logits": logits_of(model.eval())}, order["out"])


if __name__ == "__main__":
    main()
