"""The protocol of a task that reads text: what is asked, then flags in a fixed order, as in `5shot+nobos+chat+seed7`.

What is asked is the task's own: shots of an accuracy, a window of a perplexity. Flags are read and written here alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UsageError, unknown

FLAGS = {
    "bos": "one BOS before each prompt (before the whole text of a perplexity), whatever the tokenizer does by itself",
    "nobos": "no BOS, though the tokenizer may add one by itself",
    "separate": "prompt and answer are tokenised separately, as by lm-eval until May 2023",
    "notice": "the notice that the model is pruned stands before each prompt",
    "shuffled": "each gold answer follows the context of another item: what it costs where the question says nothing",
    "chat": "prompts are conversations in the model's own chat template, their examples earlier turns",
    "first_n": "each item has the same examples, the first ones there are, where lm-eval draws them for each",
    "seed": "examples are drawn with the seed that follows, where lm-eval's is 1234",
}
"""Each flag and what it means, in the order in which a protocol has them. Without a BOS flag, the tokenizer decides."""
BOS = ("bos", "nobos")
EXCLUSIVE = (BOS, ("notice", "chat"), ("first_n", "seed"))
"""Flags that exclude each other."""
EXAMPLES = ("first_n", "seed")
"""Flags about how examples are chosen."""
FEWSHOT_SEED = 1234
"""The seed with which lm-eval draws examples where it is told no other."""
SEED = re.compile(r"^seed(\d{1,9})$")
WHOLE = re.compile(r"\d{1,9}")
"""A number in a protocol."""
NO_CHAT = "the tokenizer has no chat template, which +chat asks for"
NO_DEFAULT = "the tokenizer has several chat templates, and none is its default, which +chat asks for"


@dataclass(frozen=True)
class Protocol:
    """A parsed protocol; `str` gives it back in its one form."""

    asked: str
    flags: frozenset[str] = frozenset()
    seed: int = FEWSHOT_SEED

    @classmethod
    def parse(cls, text: str, known: Collection[str] = tuple(FLAGS), where: str = "") -> Protocol:
        """The protocol `text`, with its flags in any order.

        Raises:
            UsageError: a flag that is not among `known`, or two that exclude each other.
        """
        asked, *given = text.split("+")
        before = f"{where}: " if where else ""
        seeds = [int(match[1]) for flag in given if (match := SEED.match(flag))]
        flags = {_name_of(flag) for flag in given}
        for flag in given:
            if _name_of(flag) not in known:
                shown = [name + "<n>" * (name == "seed") for name in FLAGS if name in known]
                raise unknown("flag", flag, shown, f"{before}protocol '{text}'")
        for pair in EXCLUSIVE:
            if set(pair) <= flags:
                raise UsageError(f"{before}protocol '{text}': +{pair[0]} and +{pair[1]} exclude each other")
        if len(set(seeds)) > 1:
            raise UsageError(f"{before}protocol '{text}': it has more than one seed")
        return cls(asked, frozenset(flags), seeds[0] if seeds else FEWSHOT_SEED)

    @property
    def bos(self) -> bool | None:
        """Whether the text begins with a BOS; None where the tokenizer decides."""
        return True if "bos" in self.flags else False if "nobos" in self.flags else None

    @property
    def shots(self) -> int:
        """How many examples a prompt has, where what is asked is shots."""
        return int(self.asked.removesuffix("shot"))

    def __str__(self) -> str:
        flags = self.flags - ({"seed"} if self.seed == FEWSHOT_SEED else set())
        return "+".join([self.asked, *(flag + str(self.seed) * (flag == "seed") for flag in FLAGS if flag in flags)])


def with_flag(metric: str, flag: str) -> str:
    """A metric or task id, which may end in a limit, with one flag more in its protocol."""
    name, _, suffix = metric.partition("@")
    protocol, slash, limit = suffix.partition("/")
    parsed = Protocol.parse(protocol)
    return f"{name}@{replace(parsed, flags=parsed.flags | {flag})}{slash}{limit}"


def flags_of(protocol: str) -> list[str]:
    """The known flags in the protocol of a metric or task id, which may end in a limit; in their order."""
    found = {_name_of(flag) for flag in protocol.partition("/limit")[0].split("+")[1:]}
    return [flag for flag in FLAGS if flag in found]


def why_not_for(protocol: str, weights: Path) -> str | None:
    """Why a model with its files in `weights` cannot have this protocol; None where it can, or its files do not say."""
    from bench.data.files import read_json

    settings, flags = weights / "tokenizer_config.json", flags_of(protocol)
    if not settings.is_file():
        return None
    says = read_json(settings)
    if "bos" in flags and "bos_token" in says and not says["bos_token"]:
        return "the tokenizer has no BOS, which +bos asks for"
    return why_no_chat(chat_template(weights)) if "chat" in flags else None


def why_no_chat(template: Any) -> str | None:
    """Why a tokenizer's chat template, in whatever form it has it, renders no conversation; None where it may."""
    if not template:
        return NO_CHAT
    names = {one.get("name") for one in template if isinstance(one, dict)} if isinstance(template, list) else template
    return NO_DEFAULT if not isinstance(template, str) and "default" not in names else None


def chat_template(weights: Path) -> Any:
    """The chat template among a tokenizer's files, in whatever form they have it; None where they have none."""
    from bench.data.files import read_json

    file, settings = weights / "chat_template.jinja", weights / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return read_json(settings).get("chat_template") if settings.is_file() else None


def _name_of(flag: str) -> str:
    """'seed7' -> 'seed'; nothing for a seed without its number."""
    return "seed" if SEED.match(flag) else flag * (flag != "seed")
