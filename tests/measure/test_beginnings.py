"""What the prompts of a task begin with is computed once, whatever the model, and changes no answer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from bench.measure import answers, scorer, tries
from bench.measure import beginnings as module
from bench.measure.answers import Answers
from bench.measure.beginnings import Beginning, beginnings
from bench.measure.scorer import PackedLM
from bench.protocol import Protocol
from tests.measure.test_scorer import MODELS, ask, assert_same, ignoring, stock
from tests.packs import ADJECTIVES
from tests.tiny import make_model, make_tokenizer

ANY = 10**6
FIVE = Protocol("5shot")
FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    **MODELS,
    "biases": lambda: make_model(family="qwen2", kv_heads=2),
    "eager": lambda: eager(make_model(kv_heads=2)),
}


def eager(model: Any) -> torch.nn.Module:
    model.set_attn_implementation("eager")
    return model


def examples(topic: str) -> str:
    return "".join(f"The {word} fox stands and waits for the {topic}.\n" for word in ADJECTIVES[:6])


def questions(topic: str, count: int = 6) -> list[tuple[str, str]]:
    texts = [f"{examples(topic)}The {word} dog jumps over number {i}." for i, word in enumerate(ADJECTIVES[-count:])]
    return [(text, f" It is {answer}") for text in texts for answer in ("kept.", "a", "a model", "9 9")]


TWO_BEGINNINGS = ask(*questions("heads"), *questions("channels"), ("A fox", " jumps"), ("A fox " * 80, " is"))


def score(
    model: torch.nn.Module, requests: list[Instance], protocol: Protocol = FIVE
) -> tuple[list[tuple[float, bool]], list[int]]:
    """The answers, and the tokens of each forward pass."""
    lm = PackedLM(model, make_tokenizer()).following(lambda done, total: None, None, protocol)
    assert lm.notes == []
    seen: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    found = lm.loglikelihood(requests)
    hook.remove()
    assert lm._read is None, "no cache is held once a task is done"
    return found, seen


@pytest.mark.parametrize("kind", FAMILIES)
def test_answers_are_those_without_a_common_beginning(kind: str) -> None:
    model = FAMILIES[kind]()
    before = model.config._attn_implementation
    once, passes = score(model, TWO_BEGINNINGS)
    alone, others = score(model, TWO_BEGINNINGS, Protocol("0shot"))
    assert_same(once, alone)
    assert len(passes) > len(others)
    assert model.config._attn_implementation == before


def test_answers_are_lm_evals() -> None:
    model = make_model(kv_heads=2)
    assert_same(score(model, TWO_BEGINNINGS)[0], stock(model, TWO_BEGINNINGS))


def test_each_beginning_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches so small that every document is a pass of its own."""
    monkeypatch.setattr(scorer, "CPU_TOKENS", 32)
    monkeypatch.setattr(tries, "COPYING", 0)
    _, passes = score(make_model(), TWO_BEGINNINGS[:-2])
    lengths = [len(make_tokenizer()(examples(topic))["input_ids"]) for topic in ("heads", "channels")]
    long = [tokens for tokens in passes if tokens >= min(lengths)]
    assert len(long) == 2
    assert all(abs(found - length) <= 4 for found, length in zip(sorted(long), sorted(lengths), strict=True))
    assert len(passes) > 6


@pytest.mark.parametrize("protocol", ["0shot", "0shot+notice", "0shot+nobos"])
def test_zero_shot_prompts_are_left_as_they_were(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, however much they share."""
    model = make_model()
    plain = PackedLM(model, make_tokenizer()).loglikelihood(TWO_BEGINNINGS)
    monkeypatch.delattr(scorer, "beginnings")
    assert score(model, TWO_BEGINNINGS, Protocol.parse(protocol))[0] == plain


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(kv_heads=2)
    whole, _ = score(model, TWO_BEGINNINGS)
    kept: list[int] = []
    read = PackedLM._cache_of

    def watched(lm: PackedLM, beginning: Beginning) -> Any:
        cache = read(lm, beginning)
        kept.append(sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values)))
        return cache

    monkeypatch.setattr(PackedLM, "_cache_of", watched)
    bound = 70 * 2 * 4 * 4 * 2 * model.config.head_dim  # tokens, keys and values, float32, layers, heads
    monkeypatch.setattr(scorer, "BEGINNING_BYTES", bound)
    assert_same(score(model, TWO_BEGINNINGS)[0], whole)
    assert max(kept) == bound
    kept.clear()
    monkeypatch.setattr(scorer, "BEGINNING_BYTES", bound // 2)
    assert_same(score(model, TWO_BEGINNINGS)[0], whole)
    assert max(kept, default=0) < bound // 2, "that of the check alone"


def test_rows_that_read_a_beginning_are_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a shared row would save; one trie alone has 74 tokens."""
    model, widths = make_model(kv_heads=2), []
    whole, _ = score(model, TWO_BEGINNINGS)
    hidden = PackedLM._hidden

    def watched(lm: PackedLM, batch: tries.Batch) -> torch.Tensor:
        widths.extend([batch.tokens.shape[1]] if batch.beginning else [])
        return hidden(lm, batch)

    monkeypatch.setattr(PackedLM, "_hidden", watched)
    monkeypatch.setattr(scorer, "CPU_TOKENS", 96)
    monkeypatch.setattr(tries, "COPYING", 10**6)
    assert_same(score(model, TWO_BEGINNINGS)[0], whole)
    assert 64 < max(widths) <= 96


def test_a_task_that_was_cut_off_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(scorer, "CPU_TOKENS", 64)
    model, passes = make_model(kv_heads=2), [0]

    def run(cut_at: float = math.inf) -> list[tuple[float, bool]]:
        def progress(done: int, total: int) -> None:
            if done > cut_at:
                raise KeyboardInterrupt

        lm = PackedLM(model, make_tokenizer()).following(progress, Answers(tmp_path / "kept", "key"), FIVE)
        passes.append(0)
        hook = model.model.register_forward_pre_hook(lambda *_: passes.__setitem__(-1, passes[-1] + 1))
        try:
            return lm.loglikelihood(TWO_BEGINNINGS)
        finally:
            hook.remove()

    for cut_at in (5, 30):
        with pytest.raises(KeyboardInterrupt):
            run(cut_at)
    found = run()
    assert found == score(model, TWO_BEGINNINGS)[0]
    assert 0 < passes[-1] < len(score(model, TWO_BEGINNINGS)[1])
    assert run() == found
    assert passes[-1] == 0, "not even a beginning is computed where nothing reads it"


@pytest.mark.parametrize("name", ["past_key_values", "position_ids"])
def test_a_model_that_does_not_read_what_is_kept_is_scored_by_lm_eval_and_noted(name: str) -> None:
    model = ignoring(name)
    requests = TWO_BEGINNINGS[:8]
    lm = PackedLM(model, make_tokenizer())
    assert (lm.notes == []) == (name == "past_key_values")
    zero = list(lm.notes)
    assert len(lm.following(lambda done, total: None, None, FIVE).notes) == 1
    assert "scored by lm-eval's own backend: " in lm.notes[0]
    assert_same(lm.loglikelihood(requests), stock(model, requests))
    assert lm.following(lambda done, total: None).notes == zero


def brute(texts: list[tuple[int, ...]], length: int = 0) -> int:
    """Tokens saved at best: by what all begin with, or by those of texts that go on alike."""
    if len(texts) < 2:
        return 0
    groups: dict[int, list[tuple[int, ...]]] = {}
    for text in texts:
        groups.setdefault(text[length] if length < len(text) else -1, []).append(text)
    parted = sum(brute(group, length + 1) for token, group in groups.items() if token >= 0)
    return max(length * (len(texts) - 1) if length >= 2 else 0, parted)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_the_beginnings_are_those_that_save_most(texts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_TOKENS", 2)
        patch.setattr(module, "LEAST_READERS", 2)
        found = beginnings(texts, ANY)
    readers = [reader for one in found for reader in one.readers]
    assert len(readers) == len(set(readers))
    assert all(texts[reader][: len(one.tokens)] == one.tokens for one in found for reader in one.readers)
    different = {tuple(text) for text in texts}
    saved = sum(len(one.tokens) * (len({tuple(texts[reader]) for reader in one.readers}) - 1) for one in found)
    assert saved == brute(sorted(different))


def test_short_beginnings_and_those_of_few_are_none() -> None:
    def texts(length: int, count: int) -> list[list[int]]:
        return [[*range(length), -i] for i in range(1, count + 1)]

    assert beginnings(texts(64, 4), ANY) == [Beginning(list(range(64)), [3, 2, 1, 0])]
    assert beginnings(texts(63, 400), ANY) == beginnings(texts(64, 3), ANY) == beginnings(texts(64, 1) * 9, ANY) == []
    assert beginnings(texts(100, 4), 80) == [Beginning(list(range(80)), [3, 2, 1, 0])]
    assert beginnings(texts(100, 4), 60) == beginnings([], ANY) == []
