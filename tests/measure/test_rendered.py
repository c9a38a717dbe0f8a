"""Rows that a task cannot read are one sentence with the file, the item and the column."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench.data.pack import Pack
from bench.errors import DataError
from bench.measure import measure
from bench.measure.rendered import read_rendered
from bench.measure.stock_tasks import build_requests, build_tasks
from bench.measure.subject import Subject
from bench.protocol import Protocol
from bench.registry import tasks_named
from bench.task import Task, spec_of
from bench.task_accuracy import ChoiceTask
from bench.task_kind import TaskSpec
from tests.packs import make_pack
from tests.tiny import make_model, make_tokenizer

GOOD = {"item": "q0", "context": "Question:", "choices": [" a", " b"], "gold": 1}
COMMON = {"name": "quiz", "description": "", "texts": {"5shot": "quiz/5shot"}}
KINDS: dict[str, dict[str, Any]] = {
    "gold": {},
    "rendered_accuracy": {"metrics": ["acc"], "headline": "acc"},
    "open_answer": {"metrics": ["exact_match"], "headline": "exact_match", "choice": "quiz.acc"},
}
QUESTION = {"question": "What?", "subject": "anatomy", "choices": ["it", "a bone", "the fox", "all"], "answer": 0}


def pack_of(root: Path, ref: str, table: Any) -> Pack:
    return Pack([make_pack(root, {ref: table})])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"item": None}, "row 1, item 'None': 'item' is not a text"),
        ({"context": None}, "row 1, item 'q1': 'context' is not a text"),
        ({"choices": None}, "row 1, item 'q1': 'choices' is not a list of 1 to 36 texts"),
        ({"choices": []}, "'choices' is not a list of 1 to 36 texts"),
        ({"choices": [" a", None]}, "'choices' is not a list of 1 to 36 texts"),
        ({"choices": [" a", " "]}, "'choices' is not a list of 1 to 36 texts"),
        ({"choices": [f" {i}" for i in range(37)]}, "'choices' is not a list of 1 to 36 texts"),
        ({"gold": 2}, "'gold' is not the number, from 0, of one of its 2 choices"),
        ({"gold": -1}, "'gold' is not the number, from 0, of one of its 2 choices"),
        ({"gold": None}, "'gold' is not the number, from 0, of one of its 2 choices"),
        ({"part": None}, "'part' is not a text"),
    ],
)
def test_a_row_that_is_no_rendered_request(bad: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [GOOD | {"part": "x"}, GOOD | {"part": "x", "item": "q1"} | bad]
    with pytest.raises(DataError) as caught:
        read_rendered(pack_of(tmp_path, "quiz/5shot", rows), "quiz/5shot")
    assert str(caught.value).startswith(f"{tmp_path}/quiz/5shot.parquet: row 1, item ")
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD | {"gold": "1"}], "row 0, item 'q0': 'gold' is not the number"),
        ([GOOD | {"choices": [1, 2]}], "row 0, item 'q0': 'choices' is not a list of 1 to 36 texts"),
        (pa.Table.from_pylist([GOOD])[:0], "has no rows"),
        ([{"item": "q0", "choices": [" a"], "gold": 0}], "has no column 'context'"),
    ],
)
def test_no_kind_that_reads_them_takes_other_rows(kind: str, rows: Any, message: str, tmp_path: Path) -> None:
    spec = spec_of({**COMMON, **KINDS[kind], "kind": kind}, "quiz.yaml")
    assert isinstance(spec, TaskSpec)
    subject = Subject(tmp_path, loaded=(make_model(layers=1), make_tokenizer()))
    with pytest.raises(DataError, match=rf"quiz/5shot\.parquet: {message}"):
        measure(Task(spec, "5shot"), subject, pack_of(tmp_path, "quiz/5shot", rows))


def requests_of(task_id: str, pack: Pack) -> None:
    [task] = tasks_named(task_id)
    assert isinstance(task.spec, ChoiceTask)
    for stock in build_tasks(task.spec, pack, Protocol.parse(task.protocol)).values():
        build_requests(stock, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([QUESTION, QUESTION | {"subject": None}], "column 'subject' does not hold a text in every row"),
        ([QUESTION | {"subject": 3}], "column 'subject' does not hold a text in every row"),
        (pa.Table.from_pylist([QUESTION])[:0], "has no rows"),
        ([QUESTION, QUESTION | {"answer": 4}], "row 1: the right answer, 4, is none of its 4 choices"),
        ([QUESTION, QUESTION | {"answer": None}], "row 1: the right answer, None, is none of its 4 choices"),
        ([QUESTION, QUESTION | {"question": None}], "not as lm-eval's 'mmlu_anatomy' reads it"),
        ([QUESTION, QUESTION | {"choices": ["it"]}], "not as lm-eval's 'mmlu_anatomy' reads it"),
    ],
)
def test_rows_that_lm_evals_task_cannot_read(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"mmlu/test\.parquet: .*{message}"):
        requests_of("mmlu@0shot", pack_of(tmp_path, "mmlu/test", rows))


def test_an_answer_that_lm_eval_would_count_as_wrong_in_silence(tmp_path: Path) -> None:
    rows = [{"goal": "make it", "sol1": "Wait.", "sol2": "Use the pen.", "label": label} for label in (0, 1, 2)]
    with pytest.raises(DataError, match=r"piqa/validation\.parquet: .*row 2: the right answer, 2, is none"):
        requests_of("piqa@0shot", pack_of(tmp_path, "piqa/validation", rows))
