"""Rendered requests become one row a question: small made-up files in the form of the wheel's."""

from typing import Any

import pytest

from bench.data.convert import Row
from bench.data.datasets import DATASETS
from bench.data.licences import licence_of
from bench.data.rendered import COLUMNS, RENDERED, gold, multiple_choice, parts, stories
from bench.errors import DataError
from tests.data.helpers import requests


def choice(doc: int, idx: int, context: str, continuation: str, label: int = 0, native: Any = None) -> Row:
    request = {"context": context, "continuation": continuation}
    return {"doc_id": doc, "native_id": native, "idx": idx, "label": label, "doc": {}, "request": request}


def answer(doc: int, context: str, continuation: str | None, choices: list[Any] | None = None) -> Row:
    request = {"context": context} | ({"continuation": continuation} if continuation else {})
    content = {"choices": choices or [(continuation or "").strip()]}
    return {"doc_id": doc, "native_id": f"q{doc}", "idx": 0, "label": "?", "doc": content, "request": request}


def test_a_question_is_a_row_with_its_choices_in_order_and_without_the_unconditional_ones() -> None:
    lines = [
        choice(0, 1, "Q: one?\nAnswer:", " b", 1, "x"),
        choice(0, 0, "Q: one?\nAnswer:", " a", 1, "x"),
        choice(1, 0, "Q: two?\nAnswer:", " c", 0, "y"),
        choice(1, 1, "Q: two?\nAnswer:", " d", 0, "y"),
        choice(2, 0, "Answer:", " a", 1, "x"),
        choice(2, 1, "Answer:", " b", 1, "x"),
    ]
    assert multiple_choice(requests(lines)) == [
        {"item": "x", "context": "Q: one?\nAnswer:", "choices": [" a", " b"], "gold": 1},
        {"item": "y", "context": "Q: two?\nAnswer:", "choices": [" c", " d"], "gold": 0},
    ]


def test_questions_without_ids_of_their_own_are_numbered() -> None:
    lines = [choice(doc, 0, f"Q{doc}", " a", 0, native) for doc, native in ((0, 7), (1, 7))]
    assert [row["item"] for row in multiple_choice(requests(lines))] == ["0", "1"]


def test_choices_after_different_contexts_are_refused() -> None:
    lines = [choice(0, 0, "The fox", " ran.", 0, "w"), choice(0, 1, "The dog", " ran.", 0, "w")]
    with pytest.raises(DataError, match="choices of question w follow different contexts"):
        multiple_choice(requests(lines))


def test_a_gold_answer_is_the_only_choice() -> None:
    lines = [
        answer(0, "Q:", " four"),
        answer(1, "Q:", None, ["five"]),
        answer(2, "Q:", " ('six', 'seven')", [["six", "seven"]]),
        answer(3, "def f():\n", "    return 1\n"),
    ]
    rows = gold(requests(lines))
    assert [row["choices"] for row in rows] == [[" four"], [" five"], [" six, seven"], ["    return 1\n"]]
    assert [row["item"] for row in rows] == ["q0", "q1", "q2", "q3"]
    assert {row["gold"] for row in rows} == {0}


@pytest.mark.parametrize(("examples", "left"), [(0, "Q: c?\nA:"), (1, "Q: a?\nA: 1\n\nQ: c?\nA:")])
def test_only_the_first_examples_are_kept(examples: int, left: str) -> None:
    line = answer(0, "Q: a?\nA: 1\n\nQ: b?\nA: 2\n\nQ: c?\nA:", " 3")
    assert gold(requests([line]), begins="Q:", examples=examples)[0]["context"] == left


def test_prompts_with_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match="1 examples that begin with 'Q:' are not in each prompt"):
        gold(requests([answer(0, "Q: a?\nA:", " 1")]), begins="Q:", examples=1)


def test_rows_take_turns_among_the_parts() -> None:
    long = requests([answer(i, f"c{i}", " x") for i in range(3)])
    short = requests([answer(0, "r0", " y")])
    rows = parts(long, short, names=("c", "r"))
    assert [row["item"] for row in rows] == ["c/q0", "r/q0", "c/q1", "c/q2"]
    assert [row["part"] for row in rows] == ["c", "r", "c", "c"]


def test_parts_of_the_same_questions_begin_with_different_ones() -> None:
    file = requests([answer(i, f"c{i}", " x") for i in range(4)])
    rows = parts(file, file, file, names=("c", "r", "s"), step=3)
    assert [row["item"] for row in rows[:6]] == ["c/q0", "r/q3", "s/q2", "c/q1", "r/q0", "s/q3"]
    assert len({row["item"] for row in rows}) == 12


def test_stories_take_turns_each_from_a_later_turn_of_its_conversation_on() -> None:
    lines = [answer(i, f"c{i}", " x") for i in range(7)]
    for i, line in enumerate(lines):
        line["doc"]["story"] = "one" if i < 4 else "two"
    rows = stories(requests(lines))
    assert [row["item"] for row in rows] == ["q0", "q5", "q1", "q6", "q2", "q4", "q3"]
    assert [row["about"] for row in rows] == ["0", "1", "0", "1", "0", "1", "0"]


def test_what_is_rendered_has_its_columns_and_a_protocol_for_a_name() -> None:
    for ref, source in RENDERED.items():
        assert source.columns[: len(COLUMNS)] == COLUMNS
        assert ref.endswith("shot"), ref


def test_every_dataset_has_a_licence() -> None:
    assert [ref for ref in {**DATASETS, **RENDERED} if not licence_of(ref)] == []
    assert licence_of("csqa_mc/5shot") == "MIT"
    assert licence_of("trivia_qa_wikipedia/train") == licence_of("trivia_qa/train")


@pytest.mark.parametrize("ref", ["my_text/train", "drop_mine/test", "piqa_mine/validation"])
def test_a_file_of_ones_own_has_no_licence_of_a_dataset_with_such_a_name(ref: str) -> None:
    assert licence_of(ref) == ""
