"""The roofline: how fast a generation can be at most on a machine, from what it must read and multiply.

Source: Williams, Waterman and Patterson (2009): a pass takes at least as long as its bytes take at the memory's
bandwidth, and at least as long as its products take at the machine's rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.generation.backend import Workload
from bench.shape import Shape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LIKED = {"cpu": 8, "cuda": 64}
"""Widths that are multiples of this suit the kernels: a vector of AVX2, a tile of tensor cores."""


@dataclass(frozen=True)
class MachineProbe:
    """What a machine was seen to do in a short try (`probe`).

    Attributes:
        bandwidth: bytes a second, read (or read and written) from memory.
        rate: multiply-accumulates a second, in a large matrix product.
        threads: compute threads; 1 on a GPU, which needs one to be fed.
        share: processor seconds that each thread had in a second of matrix products; None on a GPU.
        products: seconds of a product with a matrix of each of the widths that were asked for.
    """

    bandwidth: float
    rate: float
    threads: int
    share: float | None
    products: list[float]


def pass_macs(shape: Shape, tokens: int, cached: int = 0) -> int:
    """MACs of one pass over `tokens` new tokens of a sequence behind `cached`; logits of the last alone."""
    attention = 2 * shape.head_dim * sum(block.heads for block in shape.blocks)
    logits = shape.hidden * shape.vocab
    of_a_token = shape.matmul_macs(1) - attention - logits
    pairs = tokens * cached + tokens * (tokens + 1) // 2
    return tokens * of_a_token + pairs * attention + logits


def pass_numbers(shape: Shape, batch: int, seen: int) -> int:
    """Numbers that one pass reads: every weight once (of the embedding the head alone), and `seen` tokens' cache."""
    weights = shape.block_params() + shape.hidden + shape.hidden * shape.vocab
    cache = 2 * shape.head_dim * sum(block.kv_heads for block in shape.blocks)
    return weights + batch * seen * cache


def least_seconds(shape: Shape, work: Workload, dtype: str, machine: MachineProbe) -> float:
    """The least time that a generation can take."""
    passes = [(work.prompt, 0)] + [(1, work.prompt + i) for i in range(work.new - 1)]
    return sum(
        max(
            BYTES[dtype] * pass_numbers(shape, work.batch, cached + tokens) / machine.bandwidth,
            work.batch * pass_macs(shape, tokens, cached) / machine.rate,
        )
        for tokens, cached in passes
    )


def odd_width(shape: Shape, device: str) -> tuple[int, int, int] | None:
    """The most common MLP width that does not suit the kernels, the next smaller one that does, and how many blocks
    have an odd width.

    None where there is none.
    """
    liked = LIKED["cuda" if device.startswith("cuda") else "cpu"]
    odd = [block.channels for block in shape.blocks if block.channels % liked and block.channels > liked]
    if not odd:
        return None
    [(width, _)] = Counter(sorted(odd)).most_common(1)
    return width, width - width % liked, len(odd)


def odd_width_note(odd: tuple[int, int, int], blocks: int, seconds: Sequence[float]) -> str:
    """What the odd widths of a model cost: `seconds` of a product with the odd width and with the smaller one."""
    width, smaller, count = odd
    multiple = next(m for m in LIKED.values() if smaller % m == 0 and smaller + m > width)
    return (
        f"the MLP widths of {count} of {blocks} blocks are no multiple of {multiple}: a product of width {width} takes "
        f"{seconds[0] / seconds[1]:.2f} times as long as one of {smaller} ({width / smaller:.2f} by its size); "
        f"round_to: {multiple} removes channels so that widths are"
    )
