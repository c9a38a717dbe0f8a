from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.calibration import joined_windows, sample_windows, sampler_of
from bench.data.instructions import prompt_of
from bench.data.texts import documents
from bench.errors import DataError, UsageError
from bench.suite import TextSource
from tests.packs import make_pack
from tests.tiny import make_tokenizer

tokenizer = cache(make_tokenizer)
texts_of = st.lists(st.text("abc dog.", max_size=60), min_size=1, max_size=12, unique=True)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a pack of one file and names it in `LEANBOARD_DATA`."""

    def make(ref: str, rows: list[dict[str, Any]]) -> None:
        monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / ref.split("/")[0], {ref: rows})))

    return make


def _contains(ids: list[int], window: list[int]) -> bool:
    return any(ids[i : i + len(window)] == window for i in range(len(ids) - len(window) + 1))


def _assign(windows: list[list[int]], encoded: list[list[int]], free: frozenset[int]) -> bool:
    """True where each window can be given a document of its own that contains it."""
    if not windows:
        return True
    return any(_assign(windows[1:], encoded, free - {i}) for i in free if _contains(encoded[i], windows[0]))


@settings(max_examples=60, deadline=None)
@given(texts_of, st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**32))
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


def test_joined_windows_are_those_of_the_published_loader(packed: Callable[..., None]) -> None:
    """SparseGPT's and Wanda's for WikiText-2, in their own order of calls to Python's global generator."""
    import random

    rows = [f" line {i} of the text . \n" for i in range(30)]
    packed("toy/train", [{"text": row} for row in rows])
    state = random.getstate()
    ids = tokenizer()("\n\n".join(rows))["input_ids"]
    random.seed(7)
    expected = []
    for _ in range(5):
        i = random.randint(0, len(ids) - 16 - 1)
        expected.append(ids[i : i + 16])
    random.setstate(state)
    sample = sampler_of(TextSource(data="toy/train", sampler="joined"), tokenizer())
    assert sample(5, 16, 7).tolist() == expected
    assert random.getstate() == state
    assert sample(5, 16, 8).tolist() != expected


def test_a_joined_text_that_is_too_short_is_named_with_its_length() -> None:
    assert joined_windows(range(5), 2, 4, 0).tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(UsageError, match="2 windows of 4 tokens were asked for, but the joined text has 4 tokens"):
        joined_windows(range(4), 2, 4, 0)


def test_the_default_sampler_leaves_no_trace_in_the_ingredients() -> None:
    assert TextSource(data="toy/train").model_dump(mode="json") == {"data": "toy/train", "column": "text", "rows": None}
    assert TextSource(data="toy/train", sampler="joined").model_dump(mode="json")["sampler"] == "joined"


def test_instructions_and_labelled_rows_are_read_with_their_prompts(packed: Callable[..., None]) -> None:
    row = {"instruction": "Say it.", "input": "", "output": "It."}
    packed("toy/train", [row])
    [document] = documents(TextSource(data="toy/train"))
    assert document == prompt_of(row) + "It."
    assert documents(TextSource(data="toy/train", column="output")) == ["It."]
    with pytest.raises(DataError, match="has no column 'outputs'"):
        documents(TextSource(data="toy/train", column="outputs"))
    packed("glue_sst2/train", [{"sentence": "fine ", "label": 1, "idx": 0}])
    [document] = documents(TextSource(data="glue_sst2/train"))
    assert document.startswith("fine ")
    assert document.endswith("\nAnswer: positive")
    packed("alpaca/train", [{**row, "text": "as published"}])
    assert documents(TextSource(data="alpaca/train", rows=(0, 1))) == ["as published"]


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
