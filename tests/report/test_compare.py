import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.record.text import AnyRecord
from bench.report.compare import Change, Compared, compare_rows, compare_trees, table
from bench.report.find import Rows
from tests.record.records import artifact, scored, windowed
from tests.report.boards import PAIR, answers, store, text_losses
from tests.report.oracles import mcnemar
from tests.suites import here

PPL, PIQA = "wikitext2.ppl_token@128/limit64", "piqa.acc@0shot"


def checkpoint(method: str, shift: float, share: float, *, seed: int = 0, **who: Any) -> list[AnyRecord]:
    made = artifact(method, **who)
    return [
        made,
        windowed(made, "wikitext2@128/limit64", text_losses(shift, seed=seed)),
        scored(made, "piqa@0shot", answers(share, seed=seed)),
        scored(made, "hellaswag@0shot", answers(share - 0.2, seed=seed), ("acc", "acc_norm")),
    ]


def tree(folder: Path, records: list[AnyRecord]) -> Rows:
    return Rows(store(folder, records))


def by_metric(compared: Compared) -> dict[str, Change]:
    return {test.metric: test for test in compared.tests}


def test_two_rows_are_compared_task_by_task_on_the_same_items_and_windows(tmp_path: Path) -> None:
    found = tree(tmp_path, [*checkpoint("saap", 0.3, 0.6), *checkpoint("wanda_sp", 0.0, 0.9, seed=1)])
    compared = compare_rows(found, "saap", "tiny/wanda_sp", [PAIR])
    tests = by_metric(compared)
    assert set(tests) == {PPL, PIQA, "hellaswag.acc@0shot", "hellaswag.acc_norm@0shot", "pair.mean@0shot"}
    ppl, piqa, mean = tests[PPL], tests[PIQA], tests["pair.mean@0shot"]
    assert ppl.n == 64
    assert ppl.difference is not None
    assert ppl.difference.value == pytest.approx(-0.3, abs=0.02)
    assert ppl.difference.low < ppl.difference.value < ppl.difference.high < 0
    assert ppl.verdict == piqa.verdict == "B is better"
    assert piqa.p == pytest.approx(mcnemar(answers(0.6), answers(0.9, seed=1)))
    assert piqa.holm is not None
    assert piqa.holm >= piqa.p
    assert mean.n == 400
    assert mean.a == pytest.approx((tests[PIQA].a + tests["hellaswag.acc_norm@0shot"].a) / 2)
    assert [(field, x, y) for field, x, y in compared.keys if field == "method"] == [("method", "saap", "wanda_sp")]


def test_no_difference_is_said_where_there_is_none(tmp_path: Path) -> None:
    found = tree(tmp_path, [*checkpoint("saap", 0.0, 0.6), *checkpoint("wanda_sp", 0.0, 0.6)])
    assert {test.verdict for test in compare_rows(found, "saap", "wanda_sp", [PAIR]).tests} == {"no difference found"}


def test_what_cannot_be_paired_says_why(tmp_path: Path) -> None:
    one, two = artifact("saap"), artifact("wanda_sp")
    found = tree(
        tmp_path,
        [
            one,
            two,
            scored(one, "piqa@0shot", "1100" * 30),
            scored(two, "piqa@0shot", "1101" * 30, data="other text"),
            windowed(one, "wikitext2@2048", [3.0]),
            windowed(two, "wikitext2@2048", [3.1]),
            scored(one, "boolq@0shot", "10" * 60),
            scored(two, "boolq@0shot", "10" * 60, evidence={}),
        ],
    )
    verdicts = {metric: test.verdict for metric, test in by_metric(compare_rows(found, "saap", "wanda_sp", [])).items()}
    assert verdicts == {
        "piqa.acc@0shot": "other data or another engine",
        "wikitext2.ppl_token@2048": "one window is not enough",
        "boolq.acc@0shot": "no evidence kept",
    }
    assert {line["p"] for line in table(compare_rows(found, "saap", "wanda_sp", []))} == {"–"}


def test_flips_are_compared_too_of_rows_and_trees(tmp_path: Path) -> None:
    reference = checkpoint("dense", 0.0, 0.9, target="none", removed=0.0)
    near, far = checkpoint("saap", 0.0, 0.85), checkpoint("trawl", 0.0, 0.5)
    a = tree(tmp_path / "a", [*reference, *near, *far])
    compared = compare_rows(a, "saap", "trawl", [PAIR])
    flips = by_metric(compared)["piqa.acc_flips@0shot"]
    assert (flips.a, flips.b) == (pytest.approx(0.05, abs=0.03), pytest.approx(0.4, abs=0.06))
    assert flips.verdict == by_metric(compared)["pair.flips_mean@0shot"].verdict == "A is better"
    pairs, *_ = compare_trees(a, tree(tmp_path / "b", [*reference, *near]), [PAIR])
    assert {pair.a.split("/")[1]: "pair.flips_mean@0shot" in by_metric(pair) for pair in pairs} == {
        "dense": False,
        "saap": True,
    }


def test_two_trees_are_compared_row_by_row(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", [*checkpoint("saap", 0.3, 0.6), *checkpoint("trawl", 0.0, 0.6)])
    b = tree(tmp_path / "b", [*checkpoint("saap", 0.0, 0.6, version="2"), *checkpoint("lora", 0.0, 0.6)])
    pairs, only_a, only_b = compare_trees(a, b, [PAIR])
    assert [(pair.a, pair.b) for pair in pairs] == [("tiny/saap/quick/none/params=0.2",) * 2]
    assert by_metric(pairs[0])[PPL].verdict == "B is better"
    assert by_metric(pairs[0])[PIQA].verdict == "no difference found"
    assert ("version", "1", "2") in pairs[0].keys
    assert (only_a, only_b) == (["tiny/trawl/quick/none/params=0.2"], ["tiny/lora/quick/none/params=0.2"])


def test_a_row_goes_by_any_part_of_its_name_that_tells_it_apart(tmp_path: Path) -> None:
    records: list[Any] = [
        artifact("saap"),
        artifact("saap", recovery="lora"),
        artifact("saap", target="params=0.5"),
        artifact("dense", target="none", preset="default"),
    ]
    found = tree(tmp_path, records)
    assert found.row("saap/lora")[0].recovery == "lora"
    assert found.row("params=0.5")[0].target == "params=0.5"
    assert found.row("none/none")[0].method == "dense"
    assert found.row(records[1].key[:8])[0].recovery == "lora"
    with pytest.raises(UsageError, match=r"'saap' names 3 rows \(tiny/saap/quick/lora"):
        found.row("saap")
    with pytest.raises(UsageError, match="'sap' names no row"):
        found.row("sap")
    with pytest.raises(UsageError, match="are the same row"):
        compare_rows(found, "dense", "default", [])
    with pytest.raises(UsageError, match="there are no records"):
        Rows(tmp_path / "nothing").row("saap")


def test_the_verb_prints_both_kinds_and_json(tmp_path: Path) -> None:
    store(tmp_path / "results", [*checkpoint("saap", 0.3, 0.6), *checkpoint("wanda_sp", 0.0, 0.9, seed=1)])
    store(tmp_path / "other", checkpoint("saap", 0.0, 0.6))
    done = here(tmp_path, "compare", "saap", "wanda_sp")
    assert done.returncode == 0, done.stderr
    assert "B is better" in done.stdout
    assert "nats/token" in done.stdout
    content = json.loads(here(tmp_path, "compare", "saap", "wanda_sp", "--json").stdout)
    assert content["rows"][0]["tests"][0]["verdict"]
    both = here(tmp_path, "compare", "results", "other")
    assert "only in A: tiny/wanda_sp/quick/none/params=0.2" in both.stdout
    assert here(tmp_path, "compare", "saap", "lora").returncode == 2
