"""What the stand-in of a model must be like: its config, and the kinds of files that it is kept in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalogue import CATALOGUE, CatalogueEntry, HubId, HubModel, config_of
from bench.catalogue.hub import files_of
from bench.data.files import read_json
from bench.errors import UsageError, unknown
from bench.model.stand_in import Layout, TokenizerKind
from bench.shape import Shape

BIN_ALONE = ("lmsys/vicuna-7b-v1.3", "lmsys/vicuna-7b-v1.5")
"""Repositories with neither safetensors nor tokenizer.json."""
FLOAT16 = ("llama-7b", "llama-13b", "llama2-7b", "vicuna-7b", "vicuna-7b-v1.5")
"""Models of the catalogue that are published in float16; the others of the hub are in bfloat16."""
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
    if name in CATALOGUE and name not in paths:
        return Source(CATALOGUE[name].config, _layout_of(CATALOGUE[name]))
    place = paths.get(name, Path(name))
    folder = place.expanduser()
    hub_id = None if folder.is_dir() else HubId.of(str(place))
    if hub_id is None and not folder.is_dir():
        if name not in paths and not any(mark in name for mark in "/\\."):
            raise unknown("model", name, CATALOGUE)
        raise UsageError(f"model {name}: the folder {folder} does not exist")
    file = config_of(name, paths, offline)
    config = read_json(file)
    Shape.of(config, file)
    names = {path.name for path in folder.iterdir()} if hub_id is None else set(files_of(hub_id, offline))
    return Source(config, _layout_in(names, config))


def _layout_of(entry: CatalogueEntry) -> Layout:
    vocab = int(entry.config["vocab_size"])
    if not isinstance(entry.source, HubModel):
        return Layout(dtype="float32")
    alone = entry.source.repo in BIN_ALONE
    return Layout(
        weights="bin" if alone else "safetensors",
        tokenizer=_kind(vocab),
        fast=not alone,
        dtype="float16" if entry.id in FLOAT16 else "bfloat16",
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
