"""The four sides of quality: which metric stands for each, who leads on it, and whether the order holds."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from bench.record.schema import ArtifactRecord, Evidence, Metric, Windows
from bench.record.text import AnyRecord
from bench.report.build import build
from bench.report.compare import compare_rows, table
from bench.report.find import Rows
from bench.report.plots import KINDS, plots
from bench.report.plots.looks import looks
from bench.report.plots.retention import curves, retention_curve
from bench.report.plots.style import style
from bench.report.sides import tau_b
from bench.report.site.index import index_page
from bench.task_group import TaskGroup
from tests.record.records import artifact, measure, scored
from tests.report.boards import KNOWN, PAIR, PPL, answers, cells, dense, row, store, text_losses


def test_each_side_has_its_own_headline() -> None:
    records = [r for m in ("dense", "saap", "random") for r in cells(m, 20.0)]
    headline = build(records, [PAIR]).headlines["tiny"]
    assert headline.metric == "wikitext2.ppl_token@2048/limit4"
    assert headline.sides == {"knows": "pair.mean@0shot/limit20", "models text": headline.metric}
    assert build(dense(), [PAIR]).headlines["tiny"].sides == {"models text": PPL}


def test_one_task_with_signal_stands_for_what_a_model_knows() -> None:
    records = dense()
    records += [scored(records[0], f"{t}@0shot/limit200", answers(s)) for t, s in (("boolq", 0.5), ("piqa", 0.8))]
    records += [*row("saap", 0.2, share=0.8), *row("random", 1.0, share=0.3)]
    board = build(records, [], KNOWN)
    headline = board.headlines["tiny"]
    flips = "piqa.acc_flips@0shot/limit200"
    assert headline.sides == {"knows": "piqa.acc@0shot/limit200", "models text": PPL, "stays itself": flips}
    found = {r.identity.method: [board.on_side(r.identity, side).text for side in headline.sides] for r in board.rows}
    assert found == {"dense": ["–"] * 3, "saap": ["1"] * 3, "random": ["2"] * 3}


def tasked(method: str, nats: float, share: float, shift: float, **who: Any) -> list[AnyRecord]:
    """A checkpoint on three sides: choices, bits per byte of two tasks, perplexity; the dense one's baseline too."""
    made, *rest = dense() if method == "dense" else row(method, shift, **who)
    noise = sum(map(ord, method))
    found = [made, *rest, scored(made, "piqa@0shot/limit200", answers(share, seed=noise))]
    for task in ("gsm8k_gold", "squad_gold"):
        for flag, more in (("", 0.0), ("+shuffled", 1.0)):
            if method == "dense" or not flag:
                losses = text_losses(nats + more - 2, windows=30, seed=noise)
                found.append(gold(made, f"{task}@5shot{flag}/limit30", losses))
    return found


def gold(made: ArtifactRecord, task: str, losses: Sequence[float]) -> AnyRecord:
    """Bits per byte of gold answers, with nats and bytes of each; 20 bytes an answer."""
    name, _, protocol = task.partition("@")
    value = fmean(losses) / math.log(2)
    metric = Metric(id=f"{name}.bpb@{protocol}", value=value, unit="bits/byte", direction="lower", n=600, stderr=0.1)
    sums = {"bpb": Windows(nll=[20 * loss for loss in losses], targets=[20] * len(losses))}
    ingredients = {"artifact": made.key, "task": {"name": name}, "data": "gold", "engine": "bits/1"}
    return measure(made, task, [metric], evidence=Evidence(sums=sums), ingredients=ingredients)


def test_an_order_that_turns_from_side_to_side_is_said() -> None:
    rows = {"a": (1.4, 0.4, 0.2), "b": (1.3, 0.5, 0.4), "c": (1.2, 0.6, 0.6), "d": (1.1, 0.7, 0.8)}
    records = tasked("dense", 1.0, 0.8, 0.0) + [r for m, values in rows.items() for r in tasked(m, *values)]
    board = build(records, [], KNOWN)
    assert board.headlines["tiny"].metric == PPL
    found = {(a.sides, a.rows, a.pairs, a.same, a.tau) for a in board.agreements}
    assert (("knows", "models text"), 4, 6, 0, -1.0) in found


def test_fewer_than_four_rows_have_no_order_to_compare() -> None:
    rows = {"a": (1.4, 0.4, 0.2), "b": (1.3, 0.5, 0.4), "c": (1.2, 0.6, 0.6)}
    records = tasked("dense", 1.0, 0.8, 0.0) + [r for m, values in rows.items() for r in tasked(m, *values)]
    assert build(records, [], KNOWN).agreements == ()


def test_the_rank_correlation_is_kendalls() -> None:
    numbers = np.random.default_rng(4)
    for _ in range(5):
        a, b = numbers.integers(0, 6, 9), numbers.integers(0, 6, 9)
        first, second = np.triu_indices(9, 1)
        mine = tau_b(*(np.sign(x[first] - x[second])[:, None].astype(float) for x in (a, b)))
        assert mine[0] == pytest.approx(kendalltau(a, b).statistic)


def test_each_side_has_its_plots_and_sides_are_drawn_against_each_other() -> None:
    rows = {"a": (1.4, 0.4, 0.2), "b": (1.3, 0.5, 0.4)}
    records = tasked("dense", 1.0, 0.8, 0.0)
    records += [r for m, values in rows.items() for size in (0.2, 0.3) for r in tasked(m, *values, **sized(size))]
    drawn = {name.split(".")[1] for name in plots(build(records, [], KNOWN))}
    assert drawn >= {"quality-vs-size", "knows-vs-size", "retention", "retention-knows", "knows-vs-models-text"}
    assert drawn < set(KINDS)


def sized(removed: float) -> dict[str, Any]:
    return {"target": f"params={removed}", "removed": removed}


def test_what_is_zero_for_the_dense_model_is_drawn_as_it_is() -> None:
    records: list[AnyRecord] = []
    for method, removed, kl in (("dense", 0.0, 0.0), ("a", 0.2, 0.5), ("a", 0.3, 0.9)):
        made = artifact(method, **({"target": "none", "removed": 0.0} if method == "dense" else sized(removed)))
        id_ = "divergence.kl@wikitext2/128/limit16"
        metric = Metric(id=id_, value=kl, unit="nats/token", direction="lower", n=2032, stderr=0.01)
        records += [made, measure(made, "divergence@wikitext2/128/limit16", [metric])]
    board = build(records, [])
    quality = board.sides("tiny")["stays itself"]
    [line] = curves(board, "tiny", quality, 0.0).values()
    assert line == [(20.0, 0.5, 0.01), (30.0, 0.9, 0.01)]
    with style():
        axes = retention_curve(board, "tiny", quality).axes[0]
    assert axes.lines[0].get_ydata()[0] == 0.0
    assert "lower is better" in axes.get_ylabel()


def test_the_site_ranks_each_side_and_says_whether_the_order_holds() -> None:
    rows = {"a": (1.4, 0.4, 0.2), "b": (1.3, 0.5, 0.4), "c": (1.2, 0.6, 0.6), "d": (1.1, 0.7, 0.8)}
    records = tasked("dense", 1.0, 0.8, 0.0) + [r for m, values in rows.items() for r in tasked(m, *values)]
    [section] = index_page(board := build(records, [], KNOWN), {}, {"tiny": looks(board.standings)})["sections"]
    assert [title for title, _ in section["ranks"]] == ["knows", "can say", "models text", "stays itself"]
    found = {line.method: [standing.text for standing, _ in line.ranks] for line in section["lines"]}
    assert found["dense"] == ["–"] * 4
    assert (found["a"][0], found["a"][2]) == ("4", "1")
    assert found["d"][0] == "1"
    assert {a.sides for a, _ in section["agreements"]} >= {("knows", "can say"), ("knows", "models text")}
    assert "on each side that is ranked: no row (knows: " in section["firsts"][0]
    assert "; can say: d; models text: a" in section["firsts"][0]


def test_two_rows_are_compared_side_by_side(tmp_path: Path) -> None:
    records = [r for m, values in {"a": (1.4, 0.4, 0.2), "b": (1.3, 0.5, 0.4)}.items() for r in tasked(m, *values)]
    lines = table(compare_rows(Rows(store(tmp_path, records)), "a", "b", []))
    assert [line["side"] for line in lines] == ["knows", "can say", "can say", "models text"]
    assert lines[1]["B − A"].endswith(" bits/byte")
    assert len(lines[1]["A"].partition(".")[2]) == 3


def moved(made: ArtifactRecord, kl: float, protocol: str = "wikitext2/128/limit16") -> AnyRecord:
    """The divergence of a checkpoint from the dense model, window by window."""
    metric = Metric(id=f"divergence.kl@{protocol}", value=kl, unit="nats/token", direction="lower", n=2032, stderr=0.01)
    sums = {"kl": Windows(nll=[127 * kl] * 16, targets=[127] * 16)}
    ingredients = {"artifact": made.key, "data": "text"}
    return measure(made, f"divergence@{protocol}", [metric], evidence=Evidence(sums=sums), ingredients=ingredients)


def with_flips() -> list[AnyRecord]:
    """A dense model and a row that answer two tasks with signal, so that there is a complete mean of flips."""
    found: list[AnyRecord] = []
    for made, share in ((dense(), 0.8), (row("saap", 0.2), 0.6)):
        found += made
        for task, variant in (("piqa", "acc"), ("hellaswag", "acc_norm")):
            found.append(scored(made[0], f"{task}@0shot/limit200", answers(share), (variant,)))
    return found


def test_the_divergence_comes_before_a_complete_mean_of_flips() -> None:
    records = with_flips()
    flips = "pair.flips_mean@0shot/limit200"
    assert build(records, [PAIR], KNOWN).headlines["tiny"].sides["stays itself"] == flips
    made = [record for record in records if isinstance(record, ArtifactRecord)]
    records += [moved(one, kl) for one, kl in zip(made, (0.0, 0.5), strict=True)]
    board = build(records, [PAIR], KNOWN)
    assert any(column.id == flips for column in board.columns)
    assert board.headlines["tiny"].sides["stays itself"] == "divergence.kl@wikitext2/128/limit16"
    assert board.headlines["tiny"].sides["knows"] == "pair.mean@0shot/limit200"


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("wikitext2/2048/limit16", "wikitext2/128/limit16"),
        ("wikitext2/128/limit16", "ptb/128/limit16"),
        ("wikitext2/128/limit16", "c4/2048"),
        ("c4/2048", "c4/128"),
    ],
)
def test_of_divergences_wikitext_comes_first_then_the_longest_windows(first: str, other: str) -> None:
    made = artifact("dense", target="none", removed=0.0)
    board = build([made, moved(made, 0.0, other), moved(made, 0.0, first)], [])
    assert board.headlines["tiny"].sides["stays itself"] == f"divergence.kl@{first}"


def test_without_signal_on_one_gold_task_the_mean_of_the_others_stands_for_what_it_can_say() -> None:
    names = ("alpha_gold", "gsm8k_gold", "squad_gold")
    group = TaskGroup(name="say", kind="group", description="", members=tuple(f"{name}.bpb@5shot" for name in names))
    records: list[AnyRecord] = []
    for made, worse in ((dense(), 0.0), (row("saap", 0.2), 0.3), (row("random", 0.4), 0.6)):
        records += made
        for name in names:
            losses = text_losses(worse, windows=30)
            records.append(gold(made[0], f"{name}@5shot/limit30", losses))
            if not worse:
                other = losses if name == "squad_gold" else [loss + 1 for loss in losses]
                records.append(gold(made[0], f"{name}@5shot+shuffled/limit30", other))
    board = build(records, [group], KNOWN)
    mean = "say.signal_bpb_mean@mixed/limit30/alpha_gold+gsm8k_gold"
    assert board.headlines["tiny"].sides["can say"] == mean
    ranks = {row.identity.method: board.standings[row.identity][mean].text for row in board.rows}
    assert ranks == {"dense": "–", "saap": "1", "random": "2"}


def test_a_value_of_zero_is_drawn_unless_it_would_divide() -> None:
    made = [artifact("saap", **sized(removed)) for removed in (0.2, 0.4)]
    bits = ["10" * 60, "0" * 120]
    records = [r for one, its in zip(made, bits, strict=True) for r in (one, scored(one, "piqa@0shot", its))]
    board = build(records, [])
    quality = next(column for column in board.columns if column.id == "piqa.acc@0shot")
    [line] = curves(board, "tiny", quality, 0.8).values()
    assert [(x, kept) for x, kept, _ in line] == [(20.0, 62.5), (40.0, 0.0)]
    [line] = curves(board, "tiny", replace(quality, direction="lower"), 0.8).values()
    assert [x for x, _, _ in line] == [20.0]
