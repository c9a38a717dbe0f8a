"""Checkpoints that have pytorch_model*.bin alone, written once as safetensors into the cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.checkpoint_files import BIN, bins_alone, check_config
from bench.data.files import locked, nearest, read_json, replacing
from bench.data.store import file_sha256
from bench.errors import DataError, UsageError
from bench.paths import cache_dir
from bench.process import run_module

SMALL = (".json", ".model", ".txt", ".jinja")
"""What lies next to weights and is read: config, index, tokenizer, template."""
GB = 1e9


def as_safetensors(folder: Path, on_progress: Callable[[str], None]) -> Path:
    """`folder`, or a folder with its small files and its .bin weights as safetensors.

    The weights are converted once, whatever else changes; the small files are copied as they are now.

    Raises:
        DataError: a shard is missing or damaged, or holds more than tensors.
        UsageError: the model is of no known family, or there is no space.
    """
    bins = bins_alone(folder)
    if not bins:
        return folder
    check_config(read_json(folder / "config.json"), folder / "config.json")
    on_progress(f"{folder}: fingerprint of {', '.join(bins)}")
    weights = _converted(folder, bins, on_progress)
    small = sorted(path for path in folder.glob("*") if path.name.endswith(SMALL) and f".{BIN}." not in path.name)
    view = weights.with_name(f"{weights.name}-{_digest(small)[:8]}")
    with locked(view):
        if not view.is_dir():
            with replacing(view) as new:
                new.mkdir()
                for path in small:
                    shutil.copyfile(path, new / path.name)
                for path in weights.iterdir():
                    (new / path.name).symlink_to(path.resolve())
    return view


def check_space(name: str, needed: int) -> None:
    """Refuse to write `needed` bytes into the cache where the disk has no room for them."""
    free = shutil.disk_usage(nearest(cache_dir())).free
    if needed > free:
        raise UsageError(f"{name}: needs {needed / GB:.1f} GB in {cache_dir()}, and {free / GB:.1f} GB are free")


def _converted(folder: Path, bins: Sequence[str], on_progress: Callable[[str], None]) -> Path:
    paths = [folder / name for name in bins]
    target = cache_dir() / "models" / f"bin-{_digest(paths)[:16]}"
    with locked(target):
        if not target.is_dir():
            size = sum(path.stat().st_size for path in paths)
            check_space(str(folder), size)
            on_progress(f"{folder}: writing {size / GB:.1f} GB of .bin weights as safetensors (once)")
            with replacing(target) as new:
                new.mkdir()
                problem = run_module("bench.model.bin_files", str(folder), str(new))
                if problem is not None:
                    raise DataError(problem if str(folder) in problem else f"{folder}: {problem}")
    return target


def _digest(paths: Sequence[Path]) -> str:
    content = [[path.name, file_sha256(path)] for path in paths]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
