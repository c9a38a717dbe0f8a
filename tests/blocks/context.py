"""A context for methods under test: random token ids as text, no harness around it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.method import Context, Example, Target

VOCAB = 300


def token_ids(n: int, length: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randint(3, vocab, (n, length), generator=torch.Generator().manual_seed(seed))


def make_context(
    *,
    seed: int = 0,
    target: Target | None = None,
    ids: torch.Tensor | None = None,
    max_steps: int | None = None,
    examples: Sequence[Example] | None = None,
    workspace: Path | None = None,
) -> Context:
    """Calibration is `ids` where given, else fresh random windows for each draw; examples repeat one short row."""
    row = token_ids(1, 24, seed=7)[0].tolist()
    given = examples if examples is not None else [Example(row, row)] * 16
    return Context(
        seed=seed,
        device=torch.device("cpu"),
        target=target,
        tokenizer=None,
        sample=lambda n, length, draw: ids if ids is not None else token_ids(n, length, seed + 1000 * draw),
        examples_source=lambda max_length, prefix: given,
        max_steps=max_steps,
        workspace=workspace,
    )
