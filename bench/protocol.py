"""The protocol of a task that reads text: what is asked, then flags in a fixed order, as in `0shot+nobos+notice`.

What is asked is the task's own: shots of an accuracy, a window of a perplexity. Flags are read and written here alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError, unknown

FLAGS = {
    "bos": "one BOS before each prompt (before the whole text of a perplexity), whatever the tokenizer does by itself",
    "nobos": "no BOS, though the tokenizer may add one by itself",
    "separate": "prompt and answer are tokenised separately, as by lm-eval until May 2023",
    "notice": "the notice that the model is pruned stands before each prompt",
    "shuffled": "each gold answer follows the context of another item: what it costs where the question says nothing",
}
"""Each flag and what it means, in the order in which a protocol has them. Without a BOS flag, the tokenizer decides."""
BOS = ("bos", "nobos")
"""Flags that exclude each other."""


@dataclass(frozen=True)
class Protocol:
    """A parsed protocol; `str` gives it back in its one form."""

    asked: str
    flags: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, known: Collection[str] = tuple(FLAGS), where: str = "") -> Protocol:
        """The protocol `text`, with its flags in any order.

        Raises:
            UsageError: a flag that is not among `known`, or two that exclude each other.
        """
        asked, *flags = text.split("+")
        before = f"{where}: " if where else ""
        for flag in flags:
            if flag not in known:
                raise unknown("flag", flag, [name for name in FLAGS if name in known], f"{before}protocol '{text}'")
        if set(BOS) <= set(flags):
            raise UsageError(f"{before}protocol '{text}': +bos and +nobos exclude each other")
        return cls(asked, frozenset(flags))

    @property
    def bos(self) -> bool | None:
        """Whether the text begins with a BOS; None where the tokenizer decides."""
        return True if "bos" in self.flags else False if "nobos" in self.flags else None

    def __str__(self) -> str:
        return "+".join([self.asked, *(flag for flag in FLAGS if flag in self.flags)])


def flags_of(protocol: str) -> list[str]:
    """The known flags in the protocol of a metric or task id, which may end in a limit; in their order."""
    found = protocol.partition("/limit")[0].split("+")[1:]
    return [flag for flag in FLAGS if flag in found]


def why_no_bos(protocol: str, weights: Path) -> str | None:
    """Why a model with its files in `weights` cannot have this protocol; None where it can, or its files do not say."""
    from bench.data.files import read_json

    settings = weights / "tokenizer_config.json"
    if "bos" not in flags_of(protocol) or not settings.is_file():
        return None
    says = read_json(settings)
    return "the tokenizer has no BOS, which +bos asks for" if "bos_token" in says and not says["bos_token"] else None
