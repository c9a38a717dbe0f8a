"""Groups of tasks: under one protocol, or each under its own."""

import pytest
from pydantic import ValidationError

from bench.errors import UsageError
from bench.record.schema import Metric
from bench.registry import load_tasks, tasks_named
from bench.report.build import mean_of_metrics
from bench.report.headline import means_of
from bench.task_group import TaskGroup


def group(*members: str) -> TaskGroup:
    return TaskGroup(name="several", kind="group", description="Several.", members=members)


def test_the_mean_of_a_group_has_the_protocol_of_its_members() -> None:
    both = group("piqa.acc", "boolq.acc")
    assert both.suffix("piqa.acc@0shot/limit20") == "0shot/limit20"
    assert both.suffix("piqa.acc_norm@0shot") is None
    assert both.parts("0shot+nobos") == ("piqa.acc@0shot+nobos", "boolq.acc@0shot+nobos")
    assert both.mean("0shot") == "several.mean@0shot"


def test_members_may_each_have_their_own_protocol() -> None:
    mixed = group("piqa.acc@0shot+nobos", "boolq.acc@0shot")
    assert mixed.suffix("piqa.acc@0shot+nobos/limit20") == "mixed/limit20"
    assert mixed.suffix("boolq.acc@0shot") == "mixed"
    assert mixed.suffix("boolq.acc@0shot+nobos") is None
    assert mixed.suffix("piqa.acc@0shot") is None
    assert mixed.parts("mixed/limit20") == ("piqa.acc@0shot+nobos/limit20", "boolq.acc@0shot/limit20")
    [mean] = means_of(["piqa.acc@0shot+nobos"], [mixed], {})
    assert (mean.id, mean.parts) == ("several.mean@mixed", ("piqa.acc@0shot+nobos", "boolq.acc@0shot"))
    members = [Metric(id=part, value=0.5, unit="fraction", direction="higher", n=20) for part in mean.parts]
    assert mean_of_metrics(mean.id, members, is_mixed=True).value == 0.5


def test_a_suite_names_the_tasks_of_a_mixed_group_with_a_limit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(load_tasks(), "several", group("piqa.acc@0shot+nobos", "boolq.acc@0shot"))
    for name in ("several/limit20", "several@mixed/limit20"):
        assert [task.id for task in tasks_named(name)] == ["piqa@0shot+nobos/limit20", "boolq@0shot/limit20"]
    flagged = [task.id for task in tasks_named("several@mixed+notice/limit20")]
    assert flagged == ["piqa@0shot+nobos+notice/limit20", "boolq@0shot+notice/limit20"]
    with pytest.raises(UsageError, match="protocol '0shot': its tasks have their own"):
        tasks_named("several@0shot")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (("piqa.acc", "wikitext2.ppl_token"), "'wikitext2.ppl_token' is not a metric that has a mean"),
        (("piqa.acc", "boolq.acc@0shot"), "all of them fix their protocol, or none does"),
        ((), "at least 1 item"),
    ],
)
def test_what_has_no_mean_in_common_is_refused(members: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        group(*members)
