"""Lengths of calibration texts as the plan counts them are those that the samplers find."""

from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import CATALOGUE
from bench.data import lengths
from bench.data.calibration import sampler_of
from bench.data.lengths import shortfall
from bench.errors import DataError, UsageError
from bench.model.load import load_folder
from bench.model.stand_in import Layout, small_config, write_stand_in
from bench.suite import TextSource
from tests.packs import make_pack
from tests.tiny import make_tokenizer

WORDS = ["the quick brown fox " * n for n in (1, 3, 6, 9)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / "pack", {"toy/train": [{"text": t} for t in WORDS]})))
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def config(n: int, seq_len: int) -> dict[str, Any]:
    return {"calibration_samples": n, "seq_len": seq_len}


@pytest.mark.parametrize("sampler", ["documents", "joined"])
def test_what_passes_can_be_drawn_and_what_is_refused_cannot(folder: Path, sampler: str) -> None:
    source = TextSource(data="toy/train", sampler=sampler)
    draw, refused = sampler_of(source, make_tokenizer()), 0
    for seq_len in range(2, 500, 9):
        try:
            draw(2, seq_len, 0)
        except UsageError:
            closest = shortfall(source, config(2, seq_len + lengths.SPECIAL), folder)
            assert closest is not None
            refused += 1
        else:
            assert shortfall(source, config(2, seq_len), folder) is None
    assert 0 < refused < 50


def test_the_sentence_says_what_there_is(folder: Path) -> None:
    source = TextSource(data="toy/train")
    tokens = sorted(len(make_tokenizer()(text)["input_ids"]) for text in WORDS)
    said = shortfall(source, config(3, tokens[2]), folder)
    assert said == f"3 windows of {tokens[2]} tokens are asked for, and 2 of its 4 documents are that long"
    said = shortfall(TextSource(data="toy/train", sampler="joined"), config(3, 900), folder)
    assert str(said).startswith("3 windows of 900 tokens are asked for, and it has ")


def test_without_a_tokenizer_only_what_is_certain_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    source = TextSource(data="toy/train")
    longest = max(len(text) for text in WORDS)
    assert shortfall(source, config(1, longest), folder) is None
    assert shortfall(source, config(1, longest + lengths.SPECIAL + 1), folder) is not None


def test_of_a_tokenizer_model_alone_tokens_are_counted_too(folder: Path) -> None:
    """As of Vicuna, which has no tokenizer.json."""
    vicuna = folder.with_name("vicuna")
    write_stand_in(vicuna, small_config(CATALOGUE["vicuna-7b"].config), Layout(tokenizer="sentencepiece", fast=False))
    tokenizer, source = load_folder(vicuna)[1], TextSource(data="toy/train")
    assert tokenizer is not None
    longest = max(len(tokenizer(text)["input_ids"]) for text in WORDS)
    assert shortfall(source, config(1, longest), vicuna) is None
    too_long = longest + lengths.SPECIAL + 1
    assert too_long < max(len(text) for text in WORDS), "its bytes would be enough"
    assert shortfall(source, config(1, too_long), vicuna) is not None


@pytest.mark.parametrize("name", lengths.TOKENIZERS)
def test_a_damaged_tokenizer_is_one_sentence(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b"neither")
    with pytest.raises(DataError, match=rf"{name}: not a tokenizer's file \(\w+\)$"):
        shortfall(TextSource(data="toy/train"), config(1, 16), folder)


def test_it_is_counted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TextSource(data="toy/train")
    assert shortfall(source, config(2, 16), folder) is None
    monkeypatch.setattr(lengths, "documents", lambda source: pytest.fail("counted again"))
    assert shortfall(source, config(2, 16), folder) is None


def test_methods_that_do_not_say_what_they_need_are_left_to_the_run(folder: Path) -> None:
    assert shortfall(TextSource(data="toy/train"), {"samples": 10**6}, folder) is None
