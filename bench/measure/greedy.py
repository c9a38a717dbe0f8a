"""Greedy answers to prompts, in batches: the likeliest token always, until a text to stop at, EOS, or enough tokens.

What many prompts begin with, the examples of a few-shot task, is read once. Prompts of like length stand in one batch,
padded on the left; a row leaves it once its answer has ended. An answer ends and is cut as lm-eval's transformers
backend does it with one prompt at a time, but settings of the model's `generation_config.json` other than its ends (a
repetition penalty) do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from bench.errors import LeanboardError
from bench.measure.answers import Answers
from bench.measure.beginnings import beginnings
from bench.measure.measurement import Progress
from bench.model.layers import window_of


@dataclass(frozen=True)
class Ends:
    """Where answers end: before the first of these texts (none is empty), at EOS, or after so many tokens."""

    until: tuple[str, ...]
    most: int

    def cut(self, text: str) -> str:
        """The text before the first of the texts to stop at."""
        for end in self.until:
            text = text.partition(end)[0]
        return text


class Answerer:
    """Answers prompts with a decoder. A batch has at most `budget` tokens, prompts and answers together, or one row."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Ends, budget: int) -> None:
        self.model, self.tokenizer, self.ends, self.budget = model, tokenizer, ends, budget
        given = model.generation_config.eos_token_id if model.generation_config else None
        known = given if isinstance(given, list) else [given]
        self._eos = {token for token in (*known, tokenizer.eos_token_id) if token is not None}

    def answers(self, prompts: Sequence[list[int]], on_progress: Progress, kept: Answers | None = None) -> list[str]:
        """The answer to each prompt of token ids (not empty); those that `kept` has are not computed again.

        Raises:
            LeanboardError: the model's logits are not finite.
        """
        questions = [(prompt, [*self.ends.until, self.ends.most]) for prompt in prompts]
        found: dict[int, str] = {number: text for number, (text,) in (kept.load(questions) if kept else {}).items()}
        for beginning, readers in self._groups(prompts):
            read: Cache | None = None
            for batch in self._batches(prompts, readers):
                if not found.keys() >= set(batch):
                    read = read or self._read(beginning)
                    answers = self._answered([prompts[number][len(beginning) :] for number in batch], read)
                    found |= dict(zip(batch, answers, strict=True))
                    if kept:
                        kept.keep({number: (found[number],) for number in batch})
                on_progress(len(found), len(prompts))
        return [found[number] for number in range(len(prompts))]

    def _groups(self, prompts: Sequence[list[int]]) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens that prompts begin with, and the numbers of those prompts; first of those that have none in common.

        A model that only sees a window of tokens counts the padding after a beginning, and reads every prompt whole.
        """
        whole = window_of(self.model) is not None
        found = [] if whole else beginnings([prompt[:-1] for prompt in prompts], self.budget)
        shared = {number for one in found for number in one.readers}
        yield [], [number for number in range(len(prompts)) if number not in shared]
        for one in found:
            yield one.tokens, one.readers

    def _batches(self, prompts: Sequence[list[int]], numbers: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of prompts that are answered together, the longest first."""
        left = sorted(numbers, key=lambda number: (-len(prompts[number]), prompts[number]))
        while left:
            rows = max(1, self.budget // (len(prompts[left[0]]) + self.ends.most))
            yield left[:rows]
            left = left[rows:]

    def _read(self, beginning: list[int]) -> Cache | None:
        """Its keys and values."""
        if not beginning:
            return None
        with torch.inference_mode():
            ids = torch.tensor([beginning], device=self.model.device)
            read: Cache = self.model(ids, use_cache=True, logits_to_keep=1).past_key_values
        return read

    def _answered(self, prompts: Sequence[list[int]], read: Cache | None) -> list[str]:
        """The answers to prompts, of which `read` has a beginning already."""
        batch, rows = Batch.of(prompts, self.model.device, read), list(range(len(prompts)))
        ids: list[list[int]] = [[] for _ in prompts]
        while rows:
            for row, token in zip(rows, batch.step(self.model), strict=True):
                ids[row].append(token)
            going = [at for at, row in enumerate(rows) if not self._has_ended(ids[row])]
            batch.keep(going)
            rows = [rows[at] for at in going]
        return [self.ends.cut(self.tokenizer.decode(row, skip_special_tokens=True)) for row in ids]

    def _has_ended(self, ids: list[int]) -> bool:
        """Asked after each token: no text to stop at is in all but the last."""
        if ids[-1] in self._eos or len(ids) == self.ends.most:
            return True
        text = self.tokenizer.decode(ids)  # with special tokens: a text to stop at may be one
        return any(end in text for end in self.ends.until)


@dataclass
class Batch:
    """Rows that are being answered.

    `newest` are the ids that the model has not seen yet, int64 [rows, tokens]; `seen` is 1 for each token that counts
    so far and 0 for padding, int64 [rows, tokens so far].
    """

    newest: torch.Tensor
    seen: torch.Tensor
    cache: Cache | None = None

    @classmethod
    def of(cls, prompts: Sequence[list[int]], device: torch.device, read: Cache | None = None) -> Batch:
        """With `read`, the keys and values of what stands before each of them, of one row."""
        width, before = max(map(len, prompts)), read.get_seq_length() if read else 0
        padded = torch.stack([pad(torch.tensor(ids), (width - len(ids), 0)) for ids in prompts])
        seen = torch.tensor([[1] * before + [0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        cache = deepcopy(read)
        if cache is not None:
            cache.batch_repeat_interleave(len(prompts))
        return cls(padded.to(device), seen.to(device), cache)

    def step(self, model: PreTrainedModel) -> list[int]:
        """The likeliest next token of each row; the batch then ends in it."""
        positions = (self.seen.cumsum(dim=-1) - 1).clamp(min=0)[:, -self.newest.shape[1] :]
        with torch.inference_mode():
            output = model(
                input_ids=self.newest,
                attention_mask=self.seen,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1]
            if not bool(logits.isfinite().all()):
                raise LeanboardError("the model's logits are not finite")
            self.cache, self.newest = output.past_key_values, logits.argmax(dim=-1, keepdim=True)
        self.seen = pad(self.seen, (0, 1), value=1)
        return [int(token) for token in self.newest[:, 0].tolist()]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, if any; the memory of the others is freed."""
        if self.cache is not None and 0 < len(rows) < len(self.newest):
            chosen = torch.tensor(rows)
            self.newest, self.seen = self.newest[chosen], self.seen[chosen]
            self.cache.batch_select_indices(chosen)
