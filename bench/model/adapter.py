"""A PEFT adapter that goes with the model it was merged into, and is saved next to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

FOLDER = "adapter"
"""Where an adapter lies in a checkpoint: in the root, transformers would take the checkpoint for an adapter alone."""


@dataclass(frozen=True)
class Adapter:
    """Low-rank factors by peft's names, A [r, in] and B [out, r], and the settings that stock peft loads them with."""

    settings: LoraConfig
    weights: Mapping[str, torch.Tensor]

    def save(self, folder: Path) -> None:
        """Write it so that `PeftModel.from_pretrained(dense_model, folder)` loads it."""
        folder.mkdir()
        replace(self.settings, base_model_name_or_path=None, inference_mode=True).save_pretrained(folder)
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()}
        save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})


def adapter_of(model: PreTrainedModel) -> Adapter | None:
    """The adapter whose merging into the dense model gave `model`; None where there is none."""
    adapter: Adapter | None = getattr(model, "leanboard_adapter", None)
    return adapter
