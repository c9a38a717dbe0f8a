"""Leanboard: one harness for compressing large language models, and the leaderboard it makes.

`compress` and `evaluate` are the public Python interface (and `bench.report.report` makes the board); they are imported
when first used, so that importing `bench` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import Artifact as Artifact
    from bench.api import compress as compress
    from bench.api import evaluate as evaluate
    from bench.method import Target as Target
    from bench.record.schema import Metric as Metric

_WHERE = {
    "Artifact": "bench.api",
    "compress": "bench.api",
    "evaluate": "bench.api",
    "Metric": "bench.record.schema",
    "Target": "bench.method",
}
__all__ = ["Artifact", "Metric", "Target", "compress", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
