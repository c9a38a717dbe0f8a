"""lm-eval's transformers backend, computing each common beginning of prompts once.

Encoding is lm-eval's own: special tokens, the split of context and continuation, truncation. What differs is the
forward pass: prompts are merged into tries, each token attends to its ancestors only and stands at its depth, logits
are made at the parents of target tokens alone and normalised in float32. Where a protocol has examples, what prompts of
the whole task begin with is computed once (`beginnings`), and its tries read the keys and values; zero-shot prompts are
left as they always were, to the last bit. A model that does not follow such masks or caches is scored by lm-eval's own
forward passes; `notes` then gives the reason.
"""

from __future__ import annotations

import io
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cached_property
from typing import Any

import datasets
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from bench.errors import LeanboardError, UsageError
from bench.measure.answers import Answer, Answers
from bench.measure.beginnings import Beginning, beginnings, empty_cache
from bench.measure.encoding import token_ids
from bench.measure.measurement import Progress
from bench.measure.tries import Batch, batches, build_rows, build_tries
from bench.model.layers import head_of, shape_of, window_of
from bench.protocol import Protocol
from bench.task_accuracy import BEGINNING_BYTES, CPU_TOKENS, GPU_TOKENS

Request = tuple[tuple[str, str], list[int], list[int]]
"""lm-eval's encoded request: its texts, the ids of the context, the ids of the continuation."""

POSITIONS_PER_SLICE = 256
STOCK, STOCK_BATCH = "scored by lm-eval's own backend", 8
PROBE = 8
NO_PREFIX = "an empty prompt is replaced by BOS or EOS, and the tokenizer has neither"


class PackedLM(HFLM):  # type: ignore[misc]
    """Scores continuations with a decoder; `notes` holds what the reader of the results must know."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        with quiet():
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=STOCK_BATCH, softmax_dtype="float32")
        self._kept: Answers | None = None
        self._on_progress: Progress = lambda done, total: None
        self._protocol = Protocol("0shot")
        self._done = self._total = 0
        self._budget = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        self._read: tuple[Beginning, Cache] | None = None
        self.notes = self._notes

    def following(
        self, on_progress: Progress, kept: Answers | None = None, protocol: Protocol | None = None
    ) -> PackedLM:
        """This scorer, set up for one task; without a `protocol`, texts are encoded as lm-eval does it.

        The answers of finished batches are kept in `kept`, and batches that it has are not computed again: what is in a
        batch depends on the requests alone. Answers of lm-eval's own backend are not kept.
        """
        self._on_progress, self._kept, self._protocol = on_progress, kept, protocol or Protocol("0shot")
        self.notes = self._notes or (self._notes_of_examples if self._has_examples else [])
        return self

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """lm-eval's own encoding, but for a BOS that the protocol decides.

        lm-eval's looks for a BOS or EOS at the start of the text, and fails where the tokenizer has neither.
        """
        if add_special_tokens is not None or (self._protocol.bos is None and self.prefix_token_id is not None):
            ids: list[int] = super().tok_encode(string, add_special_tokens, **options)
            return ids
        return token_ids(self.tokenizer, string, self._protocol.bos)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As lm-eval does it: the answer's ids are what it adds to the prompt's.

        With `+separate` they are those of the answer by itself, as before lm-eval's pull request 531. Tokenizers that
        put a space before every text, such as LLaMA's, then give an answer one space more.
        """
        if "separate" in self._protocol.flags:
            return self.tok_encode(context), self.tok_encode(continuation, add_special_tokens=False)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answer]:
        """The answer to each request.

        Raises:
            LeanboardError: a continuation has no tokens or too many, or a log-probability is not finite.
            UsageError: a prompt is empty, and the tokenizer has nothing to put in its place.
        """
        if self.prefix_token_id is None and any(not request.args[0] for request in requests):
            raise UsageError(NO_PREFIX)
        answers: list[Answer] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def scored(self, requests: list[Request]) -> list[Answer]:
        """The answer to each request that is encoded already.

        Raises:
            LeanboardError: as `loglikelihood`.
        """
        longest = self.max_length
        for (_, text), _, target in requests:
            if not 0 < len(target) <= longest:
                raise LeanboardError(f"{text!r}: {len(target)} tokens to score; 1 to {longest} are possible")
        self._done, self._total = 0, len(requests)
        by_stock = super()._loglikelihood_tokens
        answers: list[Answer] = by_stock(requests, disable_tqdm=True) if self.notes else self._packed(requests)
        bad = sum(not math.isfinite(logp) for logp, _ in answers)
        if bad:
            raise LeanboardError(f"the model's log-probability is not finite for {bad} of {len(answers)} continuations")
        self._on_progress(self._total, self._total)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("PackedLM scores continuations; perplexity has a module of its own")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("PackedLM scores continuations; it does not generate")

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Answer]:
        return self.scored(requests)

    @property
    def _has_examples(self) -> bool:
        return self._protocol.asked != "0shot"

    def _packed(self, requests: list[Request]) -> list[Answer]:
        """The answers from forward passes over tries."""
        first = -self.max_length - 1
        inputs = [[*context, *target][first:-1] for _, context, target in requests]
        targets = [target for _, _, target in requests]
        answers = self._kept.load(zip(inputs, targets, strict=True)) if self._kept else {}
        for batch in self._batches(inputs, targets):
            if not answers.keys() >= set(batch.owners):
                scored = self._scores(batch, targets)
                answers |= scored
                if self._kept:
                    self._kept.keep(scored)
            self._report(len(batch.owners))
        self._read = None
        return [answers[i] for i in range(len(requests))]

    def _batches(self, inputs: list[list[int]], targets: list[list[int]]) -> Iterator[Batch]:
        """All inputs: those without a common beginning, then those of one beginning after another.

        A beginning ends before the parent of the first target.
        """
        found: list[Beginning] = []
        if self._has_examples:
            texts = [given[: len(given) - len(target)] for given, target in zip(inputs, targets, strict=True)]
            found = beginnings(texts, BEGINNING_BYTES // shape_of(self.model).cache_bytes(self.model.dtype.itemsize))
        left = dict(enumerate(inputs))
        shares = [(one, {i: left.pop(i)[len(one.tokens) :] for i in one.readers}) for one in found]
        yield from batches(build_tries(left), self._budget, self.device)
        for one, rest in shares:
            yield from batches(build_rows(rest, len(one.tokens), self._budget), self._budget, self.device, one)

    def _scores(self, batch: Batch, targets: list[list[int]]) -> dict[int, Answer]:
        """The answer of each request in the batch, by its number."""
        width = batch.tokens.shape[1]
        owners = batch.owners
        counts = [len(targets[owner]) for owner in owners]
        parents = [
            row * width + node
            for row, trie in enumerate(batch.tries)
            for owner, path in trie.paths.items()
            for node in path[-len(targets[owner]) :]
        ]
        where, slot = torch.unique(torch.tensor(parents, device=self.device), return_inverse=True)
        target = torch.tensor([token for owner in owners for token in targets[owner]], device=self.device)
        with torch.inference_mode():
            logp, leads = self._at_targets(self._hidden(batch).flatten(0, 1)[where], slot, target)
        parts = zip(owners, logp.split(counts), leads.split(counts), strict=True)
        return {owner: (float(p.double().sum()), bool(lead.all())) for owner, p, lead in parts}

    def _at_targets(
        self, hidden: torch.Tensor, slot: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each target token: its log-probability after the state at its slot, and whether it is the likeliest.

        `hidden` is [positions, hidden]; `slot` and `target` are int64 [targets]. Both results lie on the CPU.
        """
        head = head_of(self.model)
        logp = torch.empty(len(target), device=self.device)
        leads = torch.empty(len(target), dtype=torch.bool, device=self.device)
        for start in range(0, len(hidden), POSITIONS_PER_SLICE):
            table = head(hidden[start : start + POSITIONS_PER_SLICE]).float().log_softmax(dim=-1)
            here = ((slot >= start) & (slot < start + len(table))).nonzero().flatten()
            at, wanted = slot[here] - start, target[here]
            logp[here] = table[at, wanted]
            leads[here] = table.max(dim=-1).indices[at] == wanted
        return logp.cpu(), leads.cpu()

    def _hidden(self, batch: Batch) -> torch.Tensor:
        """The decoder's last states, [tries, nodes, hidden]."""
        arguments: dict[str, Any] = batch.attention(self.model.dtype, window_of(self.model))
        if batch.beginning:
            arguments["past_key_values"] = self._cache_of(batch.beginning)
        keeps = batch.beginning is not None
        hidden: torch.Tensor = self.model.base_model(batch.tokens, use_cache=keeps, **arguments).last_hidden_state
        return hidden

    def _cache_of(self, beginning: Beginning) -> Cache:
        """Its keys and values; those of one beginning are kept at a time."""
        if self._read is None or self._read[0] is not beginning:
            self._read = None
            cache, tokens = empty_cache(), torch.tensor([beginning.tokens], device=self.device)
            self.model.base_model(tokens, use_cache=True, past_key_values=cache)
            self._read = beginning, cache
        return self._read[1]

    @cached_property
    def _notes(self) -> list[str]:
        """Why this model cannot be scored in tries, if it cannot."""
        return self._obstacle(lambda texts: Batch.of(build_tries(dict(enumerate(texts))), self.device))

    @cached_property
    def _notes_of_examples(self) -> list[str]:
        """Why this model cannot be scored in tries that read a common beginning, if it cannot."""

        def batch(texts: list[list[int]]) -> Batch:
            start = Beginning(texts[0][: PROBE // 2], [0, 1])
            rest = {i: text[PROBE // 2 :] for i, text in enumerate(texts)}
            return Batch.of(build_tries(rest), self.device, start)

        return self._obstacle(batch)

    def _obstacle(self, pack: Callable[[list[list[int]]], Batch]) -> list[str]:
        """What is wrong where two random texts with one beginning are packed into one trie, in one note at most.

        Takes the total variation distance between the next-token distributions with and without, averaged over the
        positions in the trie.
        """
        head, draw = head_of(self.model), random.Random(0)
        ids = [[draw.randrange(head.out_features) for _ in range(PROBE)] for _ in range(3)]
        texts = [ids[0] + ids[1], ids[0] + ids[2]]
        batch = pack(texts)
        paths = batch.tries[0].paths
        with torch.inference_mode():
            plain = self.model(torch.tensor(texts, device=self.device), use_cache=False).logits
            try:
                packed = head(self._hidden(batch)[0, [paths[0], paths[1]]])
            except Exception as error:  # a decoder that knows no such masks may raise anything
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                return [f"{STOCK}: the model takes no 4-D attention mask ({reason})"]
            plain = plain[:, -packed.shape[1] :]
            gap = (plain.float().softmax(dim=-1) - packed.float().softmax(dim=-1)).abs().sum(dim=-1).mean() / 2
        if gap <= max(1e-3, 4 * torch.finfo(self.model.dtype).eps):
            return []
        return [f"{STOCK}: with common beginnings computed once, {gap:.1g} of the probability goes to other tokens"]

    def _report(self, count: int) -> None:
        self._done += count
        self._on_progress(min(self._done, self._total), self._total)

    def _model_call(self, inps: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, *args, **kwargs)
        self._report(len(inps))
        return logits


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's log and the progress bars of datasets off the terminal."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
