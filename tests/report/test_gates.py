"""The dense gate, the signal gate, and what a board then rests on."""

import numpy as np
import pytest

from bench.record.schema import Evidence, Metric
from bench.record.text import AnyRecord
from bench.registry import task_groups, tasks_named
from bench.report.board import Board
from bench.report.build import build
from bench.report.gates import DenseGate
from bench.report.published import HERE, known_dense, load_published
from bench.suite import load_suite
from bench.task_group import TaskGroup
from tests.record.records import artifact, measure, scored, windowed
from tests.report.boards import KNOWN, PPL, answers, dense, known, row, text_losses

SEVEN = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
GROUP = TaskGroup(
    name="commonsense7", kind="group", description="seven tasks", members=tuple(f"{task}.acc" for task in SEVEN)
)


def gate(records: list[AnyRecord], scores: dict[str, float]) -> DenseGate:
    return build(records, [], known(scores)).gates["tiny"]


def test_a_known_score_that_is_reproduced_opens_the_gate() -> None:
    found = gate(dense(20.0), {PPL: 20.1, "ptb.ppl_token@128": 30.0})
    assert found.state == "passed"
    assert [(check.ok, check.known.number) for check in found.checks] == [(True, 20.1), (None, 30.0)]
    assert found.checks[0].ours == pytest.approx(20.0)


def test_two_standard_errors_are_the_limit() -> None:
    [check] = gate(dense(20.0), {PPL: 20.0}).checks
    assert check.stderr is not None
    assert gate(dense(20.0), {PPL: 20.0 + 1.99 * check.stderr}).state == "passed"
    failed = gate(dense(20.0), {PPL: 20.0 + 2.01 * check.stderr})
    assert failed.state == "failed"
    assert f"{PPL} 20 where" in failed.reason


def test_one_missed_score_closes_the_gate_though_others_are_reproduced() -> None:
    records = [*dense(20.0)]
    records.append(scored(records[0], "piqa@0shot/limit200", answers(0.9)))
    assert gate(records, {PPL: 20.0, "piqa.acc@0shot/limit200": 0.6}).state == "failed"


def test_what_was_not_measured_is_not_known() -> None:
    assert gate([*row("random", 1.0)], {PPL: 20.0}).reason == "the dense model was not run"
    other = gate(dense(20.0), {"wikitext2.ppl_token@2048": 20.0})
    assert (other.state, other.checks[0].ok) == ("not known", None)


def test_a_longer_run_holds_the_score_of_its_first_items() -> None:
    records = [*dense(20.0)]
    bits = "1" * 150 + "0" * 50 + "0" * 300
    records.append(scored(records[0], "piqa@0shot/limit500", bits))
    assert gate(records, {"piqa.acc@0shot/limit200": 0.75}).state == "passed"
    assert gate(records, {"piqa.acc@0shot/limit200": 0.30}).state == "failed"
    assert gate(records, {"piqa.acc@0shot/limit600": 0.30}).state == "not known"
    assert gate(records, {"piqa.acc@0shot": 0.30}).state == "not known"


def seven(shares: dict[str, float], method: str = "dense") -> list[AnyRecord]:
    records = dense() if method == "dense" else row(method, 1.0)
    made = records[0]
    return [
        *records,
        *(
            scored(made, f"{task}@0shot/limit200", answers(shares.get(task, 0.8), seed=i))
            for i, task in enumerate(SEVEN)
        ),
    ]


def board(shares: dict[str, float]) -> Board:
    return build([*seven(shares), *seven({}, "random"), *seven({}, "saap")], [GROUP], KNOWN)


def test_the_signal_is_a_binomial_test_against_chance_or_the_majority() -> None:
    made = artifact("dense", target="none")
    bits = "1" * 124 + "0" * 76  # 62 %: above a coin, not above always saying yes
    boolq = scored(made, "boolq@0shot/limit200", bits)
    signals = build([made, scored(made, "piqa@0shot/limit200", bits), boolq], []).signals["tiny"]
    assert signals["piqa.acc@0shot/limit200"].has_signal is True
    found = signals["boolq.acc@0shot/limit200"]
    assert (found.has_signal, found.n, found.chance) == (False, 200, 0.6217)
    assert found.reason.startswith("no signal: dense 62.0 % of 200 items, chance 62.2 %")


def test_a_smoke_test_says_nothing_of_signal() -> None:
    made = artifact("dense", target="none")
    signals = build([made, scored(made, "piqa@0shot/limit8", "00000000")], []).signals["tiny"]
    assert signals["piqa.acc@0shot/limit8"].has_signal is None


def test_a_complete_mean_with_signal_everywhere_is_the_headline() -> None:
    found = board({})
    assert found.headlines["tiny"].metric == "commonsense7.mean@0shot/limit200"
    assert found.headlines["tiny"].left_out == ()
    assert PPL in found.headlines["tiny"].others
    standings = {row.method: found.standing(row) for row in found.standings}
    assert standings["saap"] is not None
    assert standings["saap"].text == "1–2"
    assert standings["saap"].metric == "commonsense7.mean@0shot/limit200"


def test_without_signal_on_some_tasks_the_others_and_perplexity_are_the_board() -> None:
    found = board({"boolq": 0.5, "winogrande": 0.4})
    headline = found.headlines["tiny"]
    mean = "commonsense7.signal_mean@0shot/limit200/arc_challenge+arc_easy+hellaswag+openbookqa+piqa"
    assert headline.metric == PPL
    assert mean in headline.others
    assert [signal.metric.split(".")[0] for signal in headline.left_out] == ["boolq", "winogrande"]
    assert "boolq.acc@0shot/limit200" not in headline.others
    assert "piqa.acc@0shot/limit200" in headline.others
    [dense_row] = [row for row in found.rows if row.identity.method == "dense"]
    able = [task for task in SEVEN if task not in ("boolq", "winogrande")]
    values = [dense_row.value(f"{task}.acc@0shot/limit200") or 0 for task in able]
    assert dense_row.value(mean) == pytest.approx(sum(values) / 5)
    standing = found.standings[found.rows[1].identity]
    assert standing[mean].text == "1–2"
    assert standing["commonsense7.mean@0shot/limit200"].reason.startswith("signal missing or not known on boolq.acc")


def test_a_perplexity_of_the_dense_model_alone_is_no_column_that_counts() -> None:
    records, whole = [*dense(), *row("saap", 0.2)], "wikitext2.ppl_token@2048"
    records.append(windowed(records[0], "wikitext2@2048", text_losses()))
    assert whole not in build(records, []).headlines["tiny"].others
    records.append(windowed(next(r for r in records if r.method == "saap"), "wikitext2@2048", text_losses(0.2)))
    assert whole in {*build(records, []).headlines["tiny"].others, build(records, []).headlines["tiny"].metric}


def test_the_mean_over_tasks_with_signal_is_another_metric_for_another_selection() -> None:
    one = {c.id for c in board({"boolq": 0.5}).columns if "signal_mean" in c.id}
    two = {c.id for c in board({"piqa": 0.5}).columns if "signal_mean" in c.id}
    assert len(one) == len(two) == 1
    assert one != two


N = 2000


def right(share: float) -> str:
    """Bits of `N` questions of which `share` is right; a better model has right all that a worse one has."""
    order = np.random.default_rng(5).permutation(N)
    return "".join("1" if rank < share * N else "0" for rank in order)


def like_known(model: str, known: str, recorded: str, shift: float = 0.0) -> list[AnyRecord]:
    """Runs of a real model: the dense one's accuracies are those known under the protocol `known`, `shift` higher, in
    records of the protocol `recorded`; two others are worse."""
    scores = [s for s in known_dense(load_published(HERE), model) if s.metric_id.endswith(f"@{known}")]
    records: list[AnyRecord] = []
    for method, lost in (("dense", 0.0), ("llm_pruner", 0.05), ("random", 0.2)):
        made = artifact(method, model=model, target="none" if method == "dense" else "params=0.2")
        records.append(made)
        for task in sorted({score.protocol.task for score in scores}):
            values = {s.protocol.metric: s.number + shift - lost for s in scores if s.protocol.task == task}
            metrics = [
                Metric(
                    id=f"{task}.{metric}@{recorded}",
                    value=right(value).count("1") / N,
                    unit="fraction",
                    direction="higher",
                    n=N,
                    stderr=(value * (1 - value) / (N - 1)) ** 0.5,
                )
                for metric, value in values.items()
            ]
            evidence = Evidence(items={metric: right(value) for metric, value in values.items()})
            ingredients = {"artifact": made.key, "task": {"name": task}, "data": "text", "engine": "accuracy/2"}
            records.append(measure(made, f"{task}@{recorded}", metrics, evidence=evidence, ingredients=ingredients))
    return records


@pytest.mark.parametrize(
    ("model", "protocol"),
    [("llama-7b", "0shot+nobos"), ("llama-7b", "0shot+nobos+separate"), ("llama-13b", "0shot+nobos+separate")],
)
def test_a_correct_dense_run_of_a_real_model_opens_its_gate_and_its_rows_are_ranked(model: str, protocol: str) -> None:
    found = build(like_known(model, protocol, protocol, 0.005), task_groups(), load_published(HERE))
    assert found.gates[model].state == "passed"
    assert len([check for check in found.gates[model].checks if check.ok]) >= 7
    assert found.headlines[model].metric == f"commonsense7.mean@{protocol}"
    ranks = {row.method: standing.text for row in found.standings if (standing := found.standing(row)) is not None}
    assert (ranks["llm_pruner"], ranks["random"]) == ("1", "2")


@pytest.mark.parametrize(
    ("known", "recorded", "state"),
    [
        ("0shot+nobos", "0shot", "not known"),
        ("0shot+nobos", "0shot+bos", "not known"),
        ("0shot+nobos+separate", "0shot+nobos", "failed"),
        ("0shot+nobos", "0shot+nobos+separate", "failed"),
    ],
)
def test_the_values_of_one_protocol_under_the_id_of_another_rank_nothing(known: str, recorded: str, state: str) -> None:
    found = build(like_known("llama-7b", known, recorded), task_groups(), load_published(HERE))
    assert found.gates["llama-7b"].state == state
    standings = [found.standing(row) for row in found.standings]
    assert not any(standing.is_ranked for standing in standings if standing is not None)


@pytest.mark.parametrize("name", ["llama7b", "llama13b", "vicuna7b"])
def test_a_suite_of_real_size_measures_a_known_score_of_its_dense_model(name: str) -> None:
    suite = load_suite(name)
    measured = {task.id for entry in suite.tasks if isinstance(entry, str) for task in tasks_named(entry)}
    [model] = suite.models
    known = {f"{s.protocol.task}@{s.protocol.protocol}" for s in known_dense(load_published(HERE), model)}
    assert known & measured
