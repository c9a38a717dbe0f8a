from functools import cache

import pytest
import torch

from bench.data.instructions import instruction_examples, prompt_of
from bench.data.training import token_examples
from bench.errors import UsageError
from tests.tiny import make_tokenizer

tokenizer = cache(make_tokenizer)
ROW = {"instruction": "Name a bird.", "input": "", "output": "the lazy dog"}


def test_the_prompt_has_headed_sections_and_input_only_where_given() -> None:
    assert "Input" not in prompt_of(ROW)
    prompt = prompt_of({**ROW, "input": "of the sea"})
    assert prompt.index("Name a bird.") < prompt.index("Input") < prompt.index("of the sea") < prompt.index("Response")
    assert prompt.count("### ") == 3


def test_loss_is_taken_on_the_answer_and_the_end_alone() -> None:
    [example] = instruction_examples([ROW], tokenizer(), 256)
    assert len(example.input_ids) == len(example.labels)
    learnt = [token for token in example.labels if token != -100]
    assert learnt[-1] == tokenizer().eos_token_id
    assert tokenizer().decode(learnt[:-1]) == "the lazy dog"
    assert example.input_ids[-len(learnt) :] == learnt
    assert tokenizer().decode(example.input_ids[: -len(learnt)]) == prompt_of(ROW)


def test_a_long_answer_is_cut_without_an_end() -> None:
    [example] = instruction_examples([{**ROW, "output": "no " * 400}], tokenizer(), 128)
    assert len(example.input_ids) == 128
    assert tokenizer().eos_token_id not in example.input_ids


def test_rows_without_room_for_an_answer_are_left_out() -> None:
    rows = [{**ROW, "instruction": "why " * 300}, ROW]
    assert len(instruction_examples(rows, tokenizer(), 256)) == 1
    with pytest.raises(UsageError, match="room for an answer within 16 tokens"):
        instruction_examples(rows, tokenizer(), 16)


def test_a_callers_own_tokens_are_taken_as_they_are() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    examples = token_examples(ids, 8)
    assert [example.input_ids for example in examples] == ids.tolist()
    assert [example.labels for example in examples] == ids.tolist()
