"""The kind of task that scores gold answers."""

from __future__ import annotations

from typing import Literal

from bench.protocol import BOS
from bench.task_accuracy import CPU_TOKENS, GPU_TOKENS
from bench.task_rendered import RenderedTexts


class GoldTask(RenderedTexts):
    """The right choice is scored; `+shuffled` gives it the context of another item of its part, about another text."""

    module = "bench.measure.bits"
    engine = f"bits/1 lm-eval/0.4 packed/cpu{CPU_TOKENS}/gpu{GPU_TOKENS}"
    seconds = 7.0
    has_limit = True
    flags = (*BOS, "shuffled")
    imports = 120_000_000  # lm-eval

    kind: Literal["gold"]
