"""Generation with transformers: its forward pass and its cache, without the bookkeeping of its `generate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from bench.measure.generation.backend import Checkpoint, Ids
from bench.measure.memory import meter_of
from bench.measure.size import resident_bytes
from bench.model.checkpoint import load_checkpoint
from bench.model.place import spread_of


def load(checkpoint: Checkpoint) -> Transformers:
    """Load the checkpoint, its probe checked, in evaluation mode."""
    return Transformers(load_checkpoint(checkpoint.folder, checkpoint.dtype, checkpoint.device)[0])


class Transformers:
    """A model of transformers as a backend."""

    cache_reserved = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.vocab: int = model.config.vocab_size
        self.weight_bytes = resident_bytes(model)
        self.spread = spread_of(model)
        self.passes = 0
        self.meter = meter_of(str(model.device))
        self._cache: Cache | None = None
        self._newest = torch.empty(0)
        model.register_forward_pre_hook(self._count)

    def clear(self) -> None:
        self._cache = None

    def prefill(self, prompt: Ids, new: int) -> torch.Tensor:
        return self._pass(torch.tensor(prompt, device=self.model.device))

    def decode(self) -> torch.Tensor:
        return self._pass(self._newest)

    def cached(self) -> list[int]:
        if self._cache is None:
            return []
        keys = self._cache.layers[0].keys
        return [self._cache.get_seq_length()] * keys.shape[0]

    def cache_bytes(self) -> int:
        layers = self._cache.layers if self._cache else ()
        return sum(t.numel() * t.element_size() for layer in layers for t in (layer.keys, layer.values))

    def ids(self, passes: Sequence[torch.Tensor]) -> Ids:
        ids: Ids = torch.cat(list(passes), dim=1).tolist()
        return ids

    def sync(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def _pass(self, ids: torch.Tensor) -> torch.Tensor:
        """Feed `ids`, int64 [batch, tokens]; returns the next token of each sequence, int64 [batch, 1]."""
        with torch.inference_mode():
            output = self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache = output.past_key_values
            self._newest = output.logits[:, -1:].argmax(dim=-1)
        return self._newest

    def _count(self, *_: object) -> None:
        self.passes += 1
