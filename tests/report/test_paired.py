"""Each row against the controls of its size."""

import pytest

from bench.record.store import AnyRecord
from bench.report.build import build
from tests.record.records import accuracy, artifact, perplexity
from tests.report.boards import PAIR


def measured(method: str, nll: list[float], bits: str, **who: object) -> list[AnyRecord]:
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
        *measured("random", [40.0, 50.0, 60.0], "0000"), *measured("saap", [30.0, 40.0, 50.0], "1100"),
        *measured("saap", [20.0, 30.0, 40.0], "1111", recovery="lora"),
        *measured("random", [1.0, 1.0, 1.0], "1111", target="params=0.5"),
    ]
    board = build(records, [PAIR])
    found = {pair.metric: pair for pair in board.pairs}
    assert {(pair.row.method, pair.row.recovery, pair.control) for pair in board.pairs} == {("saap", "none", "random")}
    assert found["wikitext2.ppl_token@2048/limit4"].difference.value == pytest.approx(-1.0)
    assert found["wikitext2.ppl_token@2048/limit4"].n == 3
    assert found["wikitext2.ppl_token@2048/limit4"].is_better is True
    assert found["pair.mean@0shot"].difference.value == pytest.approx(0.5)
    assert found["pair.mean@0shot"].n == 8
