"""Each row against its controls."""

from typing import Any

import pytest

from bench.record.schema import Cost
from bench.record.shares import share_of
from bench.record.text import AnyRecord
from bench.report.build import build
from bench.report.evidence import scores_of
from bench.report.frame import Run
from tests.record.records import accuracy, artifact, perplexity, scored
from tests.report.boards import PAIR


def measured(method: str, nll: list[float], bits: str, **who: Any) -> list[AnyRecord]:
    made = artifact(method, **who)
    windows = {"windows": {"nll": nll, "targets": [10] * len(nll)}}
    return [
        made,
        perplexity(made, 10.0).model_copy(update={"evidence": perplexity(made, 10.0).evidence.model_validate(windows)}),
        *(
            record.model_copy(update={"evidence": record.evidence.model_validate({"items": {variant: bits}})})
            for task, variant in (("piqa", "acc"), ("hellaswag", "acc_norm"))
            for record in [accuracy(made, f"{task}@0shot", 0.5, (variant,))]
        ),
    ]


def test_rows_are_compared_with_the_controls_of_their_size_and_recovery() -> None:
    records = [
        *measured("random", [40.0, 50.0, 60.0], "0000"),
        *measured("saap", [30.0, 40.0, 50.0], "1100"),
        *measured("saap", [20.0, 30.0, 40.0], "1111", recovery="lora"),
        *measured("random", [1.0, 1.0, 1.0], "1111", target="params=0.5"),
    ]
    board = build(records, [PAIR])
    found = {pair.metric: pair for pair in board.pairs if pair.control == "random"}
    assert {(pair.row.method, pair.row.recovery, pair.control) for pair in board.pairs} == {
        ("saap", "none", "random"),
        ("saap", "lora", "no recovery"),
    }
    assert found["wikitext2.ppl_token@2048/limit4"].difference.value == pytest.approx(-1.0)
    assert found["wikitext2.ppl_token@2048/limit4"].n == 3
    assert found["wikitext2.ppl_token@2048/limit4"].is_better is True
    assert found["pair.mean@0shot"].difference.value == pytest.approx(0.5)
    assert found["pair.mean@0shot"].n == 8


def test_of_the_controls_magnitude_is_held_against_random_and_random_against_none() -> None:
    records = [
        *measured("random", [40.0] * 3, "0000"),
        *measured("magnitude", [60.0] * 3, "0000"),
        *measured("saap", [20.0] * 3, "1111"),
    ]
    pairs = build(records, [PAIR]).pairs
    assert {(pair.row.method, pair.control) for pair in pairs} == {
        ("magnitude", "random"),
        ("saap", "random"),
        ("saap", "magnitude"),
    }
    assert [pair.is_better for pair in pairs if pair.row.method == "magnitude" and ".ppl" in pair.metric] == [False]


def test_what_only_trains_is_compared_with_the_dense_model_and_with_lora_of_as_many_numbers() -> None:
    def tuned(method: str, nll: float, numbers: int, preset: str) -> list[AnyRecord]:
        cost = Cost(
            seconds={}, peak_memory_bytes=None, calibration_tokens=0, optimiser_steps=1, trainable_parameters=numbers
        )
        return measured(method, [nll] * 3, "0011", target="none", removed=0.0, cost=cost, preset=preset)

    records = [
        *tuned("dense", 50.0, 0, "default"),
        *tuned("lora", 40.0, 800, "small"),
        *tuned("lora", 30.0, 800, "quick"),
        *tuned("capaboost", 20.0, 800, "small"),
        *tuned("capaboost", 10.0, 9000, "adapter"),
        *measured("random", [40.0, 50.0, 60.0], "0000"),
    ]
    found = {
        (pair.row.method, pair.row.preset, pair.control, round(pair.difference.value, 6))
        for pair in build(records, [PAIR]).pairs
        if ".ppl" in pair.metric
    }
    assert found == {
        ("lora", "small", "dense", -1.0),
        ("lora", "quick", "dense", -2.0),
        ("capaboost", "small", "dense", -3.0),
        ("capaboost", "small", "lora", -2.0),
        ("capaboost", "adapter", "dense", -4.0),
    }


def test_parts_of_the_data_count_alike_in_a_mean_over_them() -> None:
    """What is compared and drawn again has the metric as its mean, which over parts is another than over items."""
    parts, bits = {"anatomy": 8, "virology": 4}, "0" * 8 + "1" * 4
    made = artifact("random")
    record = scored(made, "mmlu@5shot", bits, ("acc", "acc_by_subject"))
    record = record.model_copy(update={"evidence": record.evidence.model_copy(update={"parts": parts})})
    found = [scores_of({0: Run(made, {record.task: record}, {})}, metric.id) for metric in record.metrics]
    assert [scores and scores.values.mean() for scores in found] == [1 / 3, 1 / 2]
    assert share_of(bits, parts.values())[0] == 1 / 2


def test_the_dense_model_is_no_control_of_how_far_a_row_moved_from_it() -> None:
    records: list[AnyRecord] = []
    for method, bits in (("dense", "1110" * 30), ("lora", "1101" * 30)):
        who: dict[str, Any] = {"target": "none", "removed": 0.0}
        records += [made := artifact(method, **who), scored(made, "piqa@0shot", bits)]
        records.append(scored(made, "hellaswag@0shot", bits, ("acc_norm",)))
    board = build(records, [PAIR])
    assert board.headlines["tiny"].sides["stays itself"] == "pair.flips_mean@0shot"
    assert {(pair.control, pair.metric) for pair in board.pairs} == {("dense", "pair.mean@0shot")}
