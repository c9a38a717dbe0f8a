"""A saved checkpoint under measurement."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bench.measure.scorer import PackedLM
    from bench.model.load import Loaded


class Subject:
    """A checkpoint folder and, once asked for, its model and tokenizer.

    `dense` is the folder of the model it was made from (for a dense model its own); None where that is not known.
    `loaded` is the folder's model and tokenizer, where they were loaded just now.
    """

    def __init__(
        self,
        path: Path,
        dense: Path | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        loaded: Loaded | None = None,
    ) -> None:
        self.path = path
        self.dense = dense
        self.dtype = dtype
        self.device = device
        if loaded is not None:
            self._loaded = loaded

    @property
    def model(self) -> PreTrainedModel:
        """In evaluation mode, gradients off."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Raises UsageError where the checkpoint has none."""
        tokenizer = self._loaded[1]
        if tokenizer is None:
            raise UsageError(f"{self.path}: the checkpoint has no tokenizer; this task needs one")
        return tokenizer

    @cached_property
    def scorer(self) -> PackedLM:
        """One for all accuracy tasks, so that the check that packing suits the model runs once."""
        from bench.measure.scorer import PackedLM

        return PackedLM(self.model, self.tokenizer)

    def release(self) -> None:
        """Drop the model and give its memory back; it is loaded again when it is next used."""
        self.__dict__.pop("scorer", None)
        if self.__dict__.pop("_loaded", None) is not None:
            from bench.measure.memory import give_back

            give_back(self.device)

    @cached_property
    def _loaded(self) -> Loaded:
        from bench.model.checkpoint import load_checkpoint

        return load_checkpoint(self.path, dtype=self.dtype, device=self.device)
