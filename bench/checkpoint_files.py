"""A checkpoint's files: checked and fingerprinted before anything loads them. No torch."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
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
SAFETENSORS, BIN = "safetensors", "bin"
STEMS = {SAFETENSORS: "model", BIN: "pytorch_model"}
NOT_ITS_WEIGHTS = ("consolidated", "adapter_model")
OTHER_FORMATS = (".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".bin")
FLOATS = ("F16", "BF16", "F32", "F64")
"""Types of safetensors that are weights as they are: F8 and F4 need scales."""
GIT_LFS = b"version "
ARCHIVE = b"PK\x03\x04"
LFS_POINTER = "a pointer of Git LFS and not the file itself; fetch it with: git lfs pull"
MISSING = "this shard of the checkpoint is missing"
CODE_REFUSED = "the model would run code of its own, which is refused without --trust-remote-code"


def check_checkpoint(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """The config and the weight files of a checkpoint, without reading the weights.

    Raises:
        DataError: no or a broken config.json, no safetensors, a missing or truncated shard, weights that are no floats.
        UsageError: its family is not known, its table cannot describe it, it is quantised or needs code of its own.
    """
    config = read_json(folder / "config.json")
    check_config(config, folder / "config.json")
    return config, check_weights(folder)


def check_config(config: dict[str, Any], file: Path, trust_remote_code: bool = False) -> None:
    """Refuse a model that cannot be read, whatever its weights; raises `UsageError` as `check_checkpoint` does.

    `trust_remote_code` leaves code of a known family's model to `bench.foreign`.
    """
    if "auto_map" in config and of_type(str(config.get("model_type"))) is None:
        raise UsageError(f"{file}: model_type: '{config.get('model_type')}' would run code of its own (auto_map)")
    family = Shape.of(config, file).family
    if config.get("model_type") != family.lean_type and "auto_map" in config and not trust_remote_code:
        raise UsageError(f"{file}: auto_map: {CODE_REFUSED}")
    if quantised := config.get("quantization_config"):
        kind = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UsageError(f"{file}: quantization_config: quantised weights ({kind}) are not read")


def check_weights(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all of them there and whole; raises `DataError`."""
    names = [path.name for path in folder.glob("*")]
    paths = [folder / name for name in weight_names(folder, names)]
    if not paths:
        raise DataError(f"{folder}: {nothing_to_read(names)}")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: {MISSING}")
        check_safetensors(path)
    return paths


def bins_alone(folder: Path) -> list[str]:
    """The pytorch_model*.bin files of a checkpoint without safetensors, all of them there; [] where it has some.

    Raises:
        DataError: one is missing.
    """
    names = [path.name for path in folder.glob("*")]
    bins = [] if weight_names(folder, names) else weight_names(folder, names, BIN)
    for name in bins:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: {MISSING}")
    return bins


def weight_names(folder: Path, names: Sequence[str], suffix: str = SAFETENSORS) -> list[str]:
    """The weight files of one format among `names`, as transformers chooses them; [] without any.

    Weights in their maker's own form and adapters, which lie with some checkpoints, are none of them. An index is
    read from `folder`; what it lists need not be among `names`.
    """
    whole = f"{STEMS[suffix]}.{suffix}"
    index = f"{whole}.index.json"
    shards = _shards(folder / index, suffix) if index in names else []
    if whole in names and whole not in shards:
        return [whole]
    if shards or suffix != SAFETENSORS:
        return shards
    return sorted(name for name in names if name.endswith(f".{suffix}") and not name.startswith(NOT_ITS_WEIGHTS))


def nothing_to_read(names: Sequence[str]) -> str:
    """What to say of a checkpoint whose files, `names`, hold no weights that are read."""
    found = sorted(name for name in names if name.endswith(OTHER_FORMATS) or name.startswith(NOT_ITS_WEIGHTS))
    others = f"; {', '.join(found[:3])}{', …' * (len(found) > 3)}: not read" if found else ""
    return f"holds no *.safetensors and no pytorch_model*.bin of transformers' form{others}"


def _shards(index: Path, suffix: str) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise DataError(f"{index}: weight_map: no shards are listed")
    names = sorted(set(map(str, shards.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(f".{suffix}"):
            raise DataError(f"{index}: weight_map: '{name}' is not the name of a {suffix} file next to it")
    return names


def check_bin(path: Path) -> None:
    """See that a file of torch's is whole, as far as that shows: an archive's list is its end. Raises `DataError`."""
    with path.open("rb") as file:
        is_archive = file.read(len(ARCHIVE)) == ARCHIVE
    if not path.stat().st_size or (is_archive and not zipfile.is_zipfile(path)):
        raise DataError(f"{path}: truncated")


def check_safetensors(path: Path) -> None:
    """Read the header alone and compare the file's size with it; raises `DataError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == GIT_LFS:
            raise DataError(f"{path}: {LFS_POINTER}")
        try:
            header = json.loads(file.read(length)) if 8 + length <= size else {}
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            ends = [entry["data_offsets"][1] for entry in tensors.values()]
            types = {name: str(entry["dtype"]) for name, entry in tensors.items()}
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{path}: truncated or not a safetensors file (its header cannot be read)") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise DataError(f"{path}: truncated or changed: {size} bytes where its header says {expected}")
    for name, kind in types.items():
        if kind not in FLOATS:
            raise DataError(f"{path}: {name} is of type {kind}: quantised weights are not read")


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
