"""`bench.shape`, where what imports `bench.model` (and so torch) looks for it."""

from bench.shape import BlockKept, BlockShape, FactorShape, Kept, Shape, Slice

__all__ = ["BlockKept", "BlockShape", "FactorShape", "Kept", "Shape", "Slice"]
