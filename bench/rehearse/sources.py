"""What the stand-in of a model must be like: its config, and the kinds of files that it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalogue import CATALOGUE, CatalogueEntry, HubModel
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


def source_of(name: str, paths: Mapping[str, Path]) -> Source:
    """The source of a catalogue id, or of a folder (from `paths`, or `name` itself).

    Raises:
        UsageError: not a known model or folder, or of no known family.
        DataError: config.json is missing or damaged.
    """
    entry, folder = CATALOGUE.get(name), paths.get(name)
    if folder is None and entry is None:
        if not any(mark in name for mark in "/\\."):
            raise unknown("model", name, CATALOGUE)
        folder = Path(name)
    if folder is None:
        assert entry is not None
        return Source(entry.config, _layout_of(entry))
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(f"model {name}: the folder {folder} does not exist")
    config = read_json(folder / "config.json")
    Shape.of(config, folder / "config.json")
    return Source(config, _layout_in(folder, config))


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


def _layout_in(folder: Path, config: Mapping[str, Any]) -> Layout:
    names = {file.name for file in folder.iterdir()}
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
