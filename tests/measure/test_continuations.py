from pathlib import Path

import pytest
import torch

from bench.data.pack import Pack
from bench.errors import UsageError
from bench.measure import continuations, measure
from bench.measure.subject import Subject
from bench.registry import tasks_named
from bench.task import ContinuationTask, Task
from tests.tiny import make_model, make_tokenizer

SPEC = ContinuationTask(
    name="continuations", kind="continuation", description="", beginnings=("A fox", "The old mill is")
)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model of other weights than `tiny_mha`."""
    model = make_model()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_each_new_token_is_the_likeliest_after_all_before_it_whatever_stands_beside_it(tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    for text, row in zip(SPEC.beginnings, continuations.continued(subject, SPEC.beginnings, 6), strict=True):
        ids = subject.tokenizer(text)["input_ids"]
        for token in row:
            assert int(subject.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
        assert len(row) == 6


def test_the_dense_model_agrees_with_itself_and_another_only_by_chance(tiny_mha: Path, other: Path) -> None:
    task = Task(SPEC, "n8")
    same = measure(task, Subject(tiny_mha, dense=tiny_mha), Pack([]))
    assert [(m.id, m.value, m.n) for m in same.metrics] == [("continuations.agreement@n8", 1.0, 2)]
    assert same.evidence.texts["measured"] == same.evidence.texts["dense"]
    apart = measure(task, Subject(other, dense=tiny_mha), Pack([]))
    assert apart.metrics[0].value < 1
    assert apart.evidence.texts["dense"] == same.evidence.texts["measured"] != apart.evidence.texts["measured"]
    assert apart.evidence.texts["beginning"] == list(SPEC.beginnings)


def test_without_a_dense_model_there_are_texts_and_no_number(tiny_mha: Path) -> None:
    alone = measure(Task(SPEC, "n4"), Subject(tiny_mha), Pack([]))
    assert alone.metrics == []
    assert set(alone.evidence.texts) == {"beginning", "measured"}


def test_what_agrees_ends_at_the_first_difference() -> None:
    assert continuations.common([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert continuations.common([1], [1]) == 1


def test_the_protocol_is_the_number_of_tokens() -> None:
    assert [task.id for task in tasks_named("continuations")] == ["continuations@n24"]
    with pytest.raises(UsageError, match="protocol '24' is not n<new tokens>"):
        tasks_named("continuations@24")
