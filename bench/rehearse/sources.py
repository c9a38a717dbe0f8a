"""What the stand-in of a model must be like: its config, and the kinds of files that it is kept in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalogue import CatalogueEntry, HubModel, config_of, named
from bench.catalogue.hub import files_of
from bench.data.files import read_json
from bench.model.stand_in import Layout, TokenizerKind
from bench.shape import Shape

SENTENCEPIECE, BEGINS = 33_000, 128_000
"""Vocabularies up to the first are sentencepiece's; tokenizers of the second and a few more begin texts (Llama 3)."""


@dataclass(frozen=True)
class Source:
    """The real model: its config.json and its files."""

    config: Mapping[str, Any]
    layout: Layout


def source_of(name: str, paths: Mapping[str, Path], *, offline: bool) -> Source:
    """The source of a catalogue id, or of the folder or hub id that `paths` gives for `name` or `name` is.

    Raises:
        UsageError: not a known model or folder, of no known family, or not to be had from the hub.
        DataError: config.json is missing or damaged.
    """
    place = named(name, paths)
    if isinstance(place, CatalogueEntry):
        return Source(place.config, _layout_of(place))
    file = config_of(place, offline)
    config = read_json(file)
    Shape.of(config, file)
    names = {path.name for path in place.iterdir()} if isinstance(place, Path) else set(files_of(place, offline))
    return Source(config, _layout_in(names, config))


def _layout_of(entry: CatalogueEntry) -> Layout:
    vocab = int(entry.config["vocab_size"])
    if not isinstance(entry.source, HubModel):
        return Layout(dtype="float32")
    old = entry.source.is_old
    return Layout(
        weights="bin" if old else "safetensors", tokenizer=_kind(vocab), fast=not old, dtype=entry.source.dtype
    )


def _layout_in(names: Collection[str], config: Mapping[str, Any]) -> Layout:
    kind: TokenizerKind
    if "tokenizer.model" in names:
        kind = "sentencepiece"
    elif "tokenizer.json" in names:
        kind = _kind(max(int(config["vocab_size"]), SENTENCEPIECE + 1))
    else:
        kind = "none"
    return Layout(
        weights="safetensors" if any(name.endswith(".safetensors") for name in names) else "bin",
        tokenizer=kind,
        fast="tokenizer.json" in names,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


def _kind(vocab: int) -> TokenizerKind:
    if vocab <= SENTENCEPIECE:
        return "sentencepiece"
    return "bpe+bos" if BEGINS <= vocab < BEGINS + 1000 else "bpe"
