"""Random weights: `python -m bench.model.random RECIPE FOLDER` writes a checkpoint; the recipe is JSON.

A process of its own, because it loads torch. It needs memory for one shard and the largest matrix, whatever the size of
the model.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bench.errors import first_line
from bench.family import of_config
from bench.model.classes import config_class, stock_class
from bench.model.load import dtype_of

STD = 0.02
SHARD_BYTES = 400_000_000

Sizes = dict[str, torch.Size]


def write(config: Mapping[str, Any], dtype: str, seed: int, folder: Path) -> None:
    """Write a model of the shape that `config` gives, with weights from N(0, 0.02²), norms 1, biases 0, into `folder`.

    Every tensor is drawn in float32 from a generator of its own, seeded from `seed` and its name.
    """
    folder.mkdir(parents=True)
    family = of_config(config)
    stock = config_class(family)(**{name: value for name, value in config.items() if name != "model_type"})
    with torch.device("meta"):
        sizes = {name: parameter.shape for name, parameter in stock_class(family)(stock).named_parameters()}
    width = dtype_of(dtype).itemsize
    shards = list(_shards(sizes, SHARD_BYTES // width))
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: draw(name, size, seed).to(dtype_of(dtype)) for name, size in shard.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = width * sum(size.numel() for size in sizes.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    stock.architectures, stock.dtype = [family.architecture], dtype
    stock.save_pretrained(folder)


def draw(name: str, size: torch.Size, seed: int) -> torch.Tensor:
    """The weights called `name`, float32: a vector is a bias of zeros or a norm of ones."""
    if len(size) == 1:
        return torch.zeros(size) if name.endswith(".bias") else torch.ones(size)
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.empty(size).normal_(0.0, STD, generator=generator)


def _shards(sizes: Sizes, most: int) -> Iterator[Sizes]:
    """Neighbouring tensors together, up to `most` numbers; a larger tensor alone."""
    shard: Sizes = {}
    for name, size in sizes.items():
        if shard and sum(s.numel() for s in shard.values()) + size.numel() > most:
            yield shard
            shard = {}
        shard[name] = size
    yield shard


if __name__ == "__main__":
    try:
        write(**json.loads(sys.argv[1]), folder=Path(sys.argv[2]))
    except (OSError, ValueError, SafetensorError) as error:
        sys.exit(first_line(error))
