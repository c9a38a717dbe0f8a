"""A checkpoint's files: checked and fingerprinted before anything loads them. No torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.data.files import read_json
from bench.data.store import file_sha256
from bench.errors import DataError, UsageError
from bench.family import of_type
from bench.shape import Shape

TOKENIZER_FILES = ("special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json")
BOOKKEEPING = {
    "_model_name_or_path",
    "_name_or_path",
    "auto_map",
    "dtype",
    "is_local",
    "local_files_only",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
CODE_REFUSED = "the model would run code of its own, which is refused without --trust-remote-code"


def check_checkpoint(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """The config and the weight files of a checkpoint, without reading the weights.

    Raises:
        DataError: no or a broken config.json, no safetensors, a missing or truncated shard.
        UsageError: its family is not known, its table cannot describe it, or it needs code of its own.
    """
    config = read_json(folder / "config.json")
    file = folder / "config.json"
    if "auto_map" in config and of_type(str(config.get("model_type"))) is None:
        raise UsageError(f"{file}: model_type: '{config.get('model_type')}' would run code of its own (auto_map)")
    family = Shape.of(config, file).family
    if config.get("model_type") != family.lean_type and "auto_map" in config:
        raise UsageError(f"{file}: auto_map: {CODE_REFUSED}")
    weights = _weight_files(folder)
    for path in weights:
        _check_safetensors(path)
    return config, weights


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise DataError(f"{index}: weight_map: no shards are listed")
        names = sorted(set(map(str, shards.values())))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise DataError(f"{index}: weight_map: '{name}' is not the name of a safetensors file next to it")
        paths = [folder / name for name in names]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise DataError(f"{folder}: holds no *.safetensors (only that format is read)")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: this shard of the checkpoint is missing")
    return paths


def _check_safetensors(path: Path) -> None:
    """Read the header alone and compare the file's size with it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 8 + length <= size else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{path}: truncated or not a safetensors file (its header cannot be read)") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise DataError(f"{path}: truncated or changed: {size} bytes where its header says {expected}")


def fingerprint_of(config: dict[str, Any], weights: list[Path]) -> str:
    """A hash of the weights and of all config fields that change what the model computes."""
    kept = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    return _digest([kept, [[path.name, file_sha256(path)] for path in weights]])


def weights_sha256(folder: Path) -> str:
    """A hash of a checkpoint's weight files, names included; raises what `check_checkpoint` does."""
    _, weights = check_checkpoint(folder)
    return _digest([[path.name, file_sha256(path)] for path in weights])


def tokenizer_fingerprint(folder: Path) -> str:
    """A hash of the tokenizer's files, "none" without any."""
    parts: list[object] = []
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.suffix == ".model" and path.exists():
            parts.append([name, file_sha256(path)])
        elif path.exists():
            parts.append([name, {key: value for key, value in read_json(path).items() if key not in BOOKKEEPING}])
    return _digest(parts) if parts else "none"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
