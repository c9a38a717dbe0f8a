"""PyTorch's pickles to safetensors: `python -m bench.model.bin_files FOLDER NEW` writes each pytorch_model*.bin anew.

A process of its own, for the one place that reads pickles: as tensors alone (`weights_only`), one shard at a time.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.checkpoint_files import BIN, GIT_LFS, LFS_POINTER, SAFETENSORS, STEMS, weight_names
from bench.errors import DataError, LeanboardError


def convert(folder: Path, new: Path) -> None:
    """Write each shard of `folder` as a safetensors file of `new`, with an index where there are several.

    Raises:
        DataError: a file is damaged, or holds more than tensors of floating-point numbers.
    """
    places: dict[str, str] = {}
    size = 0
    names = weight_names(folder, [path.name for path in folder.glob("*")], BIN)
    for name in names:
        tensors = _own_memory(_tensors(folder / name))
        target = name.replace(STEMS[BIN], STEMS[SAFETENSORS], 1).removesuffix(BIN) + SAFETENSORS
        save_file(tensors, new / target, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, target)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(names) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (new / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, mapped from the disk where its form allows."""
    with path.open("rb") as file:
        if file.read(len(GIT_LFS)) == GIT_LFS:
            raise DataError(f"{path}: {LFS_POINTER}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a file of somebody else can be wrong in any way
        if type(error).__name__ == "UnpicklingError":
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"{found[1]}, which is no tensor" if found else "more than tensors, or is damaged"
            raise DataError(f"{path}: this pickle asks for {what}; it could run code and is refused") from error
        raise DataError(f"{path}: truncated or not a file of PyTorch's ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__} and not tensors by name")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise DataError(f"{path}: '{name}' is {type(value).__name__} and not a tensor")
        if not value.is_floating_point():
            raise DataError(f"{path}: {name} is of type {value.dtype}: quantised weights are not read")
    return content


def _own_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, where a view of another tensor, or one name of two that are tied, is copied out of its memory."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage()
        is_alone = memory.nbytes() == tensor.nbytes and memory.data_ptr() not in seen and tensor.is_contiguous()
        found[name] = tensor.detach() if is_alone else tensor.detach().clone(memory_format=torch.contiguous_format)
        seen.add(memory.data_ptr())
    return found


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except LeanboardError as error:
        sys.exit(str(error))
