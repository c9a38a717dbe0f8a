"""What a file of the pack holds decides how it is trained on."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.data.glue import TEMPLATES
from bench.data.instructions import instruction_examples
from bench.data.training import training_examples
from bench.errors import DataError, UsageError
from bench.method import Example
from bench.suite import TextSource
from tests.packs import make_pack
from tests.tiny import make_tokenizer

tokenizer = cache(make_tokenizer)
INSTRUCTIONS = [{"instruction": f"Name {n} birds.", "input": "", "output": "the dog"} for n in range(3)]
SENTENCES = [{"sentence": f"the {word} fox", "label": i % 2, "idx": i} for i, word in enumerate(["old", "new", "red"])]
PREFIX = "Read this before you read on.\n\n"
TEXTS = [{"text": "The quick brown fox jumps over the lazy dog."}, {"text": ""}, {"text": "what is kept?"}]


@pytest.fixture(autouse=True)
def _pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, Any] = {
        "alpaca/train": INSTRUCTIONS,
        "glue_sst2/train": SENTENCES,
        "prose/train": TEXTS,
        "bare/train": TEXTS[1:2],
    }
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path, rows)))


def examples(ref: str, max_length: int = 256, prefix: str = "", **source: object) -> list[Example]:
    return training_examples(TextSource(data=ref, **source), tokenizer(), max_length, prefix)


def test_instructions_train_the_answer() -> None:
    assert examples("alpaca/train") == instruction_examples(INSTRUCTIONS, tokenizer(), 256)


def test_labelled_rows_train_the_label_in_words() -> None:
    found = examples("glue_sst2/train")
    assert [tokenizer().decode(example.input_ids) for example in found] == [
        "".join(TEMPLATES["glue_sst2"].pair(row)) for row in SENTENCES
    ]
    learnt = [tokenizer().decode([t for t in example.labels if t != -100]) for example in found]
    assert learnt == [" negative", " positive", " negative"]


def test_a_column_that_is_named_is_trained_on_as_plain_text() -> None:
    for ref, column, text in (("alpaca/train", "output", "the dog"), ("glue_sst2/train", "sentence", "the old fox")):
        found = examples(ref, column=column)[0]
        assert tokenizer().decode(found.input_ids) == text
        assert found.labels == found.input_ids


def test_other_text_trains_every_token() -> None:
    found = examples("prose/train", 12)
    assert [len(example.input_ids) for example in found] == [12, len(tokenizer()("what is kept?")["input_ids"])]
    assert all(example.labels == example.input_ids for example in found)


@pytest.mark.parametrize("ref", ["alpaca/train", "glue_sst2/train", "prose/train"])
def test_a_prefix_stands_before_each_example_without_a_loss(ref: str) -> None:
    before = tokenizer()(PREFIX, verbose=False)["input_ids"]
    plain, longer = examples(ref), examples(ref, prefix=PREFIX)
    assert longer == [Example(before + example.input_ids, [-100] * len(before) + example.labels) for example in plain]


@pytest.mark.parametrize("ref", ["alpaca/train", "glue_sst2/train", "prose/train"])
def test_rows_may_be_chosen(ref: str) -> None:
    assert examples(ref, rows=(2, 3)) == examples(ref)[-1:]


def test_what_cannot_be_trained_on_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="bare/train: no row of 'text' has two tokens or more"):
        examples("bare/train")
    with pytest.raises(UsageError, match="no labelled row is within 3 tokens"):
        examples("glue_sst2/train", 3)
    with pytest.raises(DataError, match="column"):
        examples("prose/train", column="passage")
