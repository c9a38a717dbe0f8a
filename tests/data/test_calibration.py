from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.calibration import sample_windows
from bench.errors import UsageError
from tests.tiny import make_tokenizer

tokenizer = cache(make_tokenizer)
documents = st.lists(st.text("abc dog.", max_size=60), min_size=1, max_size=12, unique=True)


def _contains(ids: list[int], window: list[int]) -> bool:
    return any(ids[i : i + len(window)] == window for i in range(len(ids) - len(window) + 1))


def _assign(windows: list[list[int]], encoded: list[list[int]], free: frozenset[int]) -> bool:
    """True where each window can be given a document of its own that contains it."""
    if not windows:
        return True
    return any(_assign(windows[1:], encoded, free - {i}) for i in free if _contains(encoded[i], windows[0]))


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**32))
def test_windows_are_pieces_of_distinct_documents(texts: list[str], n: int, seq_len: int, seed: int) -> None:
    encoded = [tokenizer()(text)["input_ids"] for text in texts]
    enough = sum(len(ids) >= seq_len for ids in encoded)
    if enough < n:
        with pytest.raises(UsageError, match=f"only {enough} of the {len(texts)} documents"):
            sample_windows(texts, tokenizer(), n, seq_len, seed)
        return
    windows = sample_windows(texts, tokenizer(), n, seq_len, seed)
    assert windows.shape == (n, seq_len)
    assert str(windows.dtype) == "torch.int64"
    assert _assign(windows.tolist(), encoded, frozenset(range(len(texts))))
    assert windows.tolist() == sample_windows(texts, tokenizer(), n, seq_len, seed).tolist()


def test_other_seeds_give_other_windows() -> None:
    texts = [f"{i} " * 50 for i in range(40)]
    drawn = {tuple(sample_windows(texts, tokenizer(), 3, 16, seed).flatten().tolist()) for seed in range(5)}
    assert len(drawn) == 5


def test_draws_are_those_of_the_published_sampler() -> None:
    """The same generator calls in the same order: a document, then (where it is long enough and new) a start."""
    import random

    texts = ["short", *(f"text {i} " * (3 + i) for i in range(6))]
    encoded = [tokenizer()(text)["input_ids"] for text in texts]
    generator, used = random.Random(42), []
    expected: list[Any] = []
    while len(expected) < 4:
        i = generator.randint(0, len(texts) - 1)
        if len(encoded[i]) >= 12 and i not in used:
            used.append(i)
            start = generator.randint(0, len(encoded[i]) - 12)
            expected.append(encoded[i][start : start + 12])
    assert sample_windows(texts, tokenizer(), 4, 12, 42).tolist() == expected


def test_no_documents_at_all() -> None:
    with pytest.raises(UsageError, match="only 0 of the 0 documents"):
        sample_windows([], tokenizer(), 1, 4, 0)


def test_random_windows_are_those_of_their_seed_over_the_whole_vocabulary() -> None:
    from bench.run.compress import Texts
    from bench.suite import RandomTokens

    tokens = RandomTokens(random_tokens=300)
    texts = Texts(calibration=tokens, training=tokens)
    sample, again = texts.sampler(None, 0), texts.sampler(None, 0)
    drawn = sample(64, 32, 0)
    assert (drawn.shape, drawn.dtype) == ((64, 32), torch.int64)
    assert set(drawn.flatten().tolist()) <= set(range(300))
    assert len(set(drawn.flatten().tolist())) > 290
    assert torch.equal(drawn, again(64, 32, 0))
    assert not torch.equal(drawn, sample(64, 32, 1))
    assert not torch.equal(drawn, texts.sampler(None, 1)(64, 32, 0))
    one, other, same = (texts.examples(None, seed)(8, prefix) for seed, prefix in ((0, ""), (1, ""), (0, "the dog")))
    assert {len(example.input_ids) for example in one} == {8}
    assert one[0].input_ids == one[0].labels
    assert one == same
    assert one != other
