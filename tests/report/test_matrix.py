"""The recovery matrix: criterion and recovery apart."""

from typing import Any

from bench.report.build import build
from bench.report.markdown import markdown
from bench.report.matrix import matrix_of
from tests.record.records import artifact, windowed
from tests.report.boards import cells, smollm


def test_a_line_for_what_was_measured_with_and_without_recovery() -> None:
    records = [
        *smollm(),
        *cells("llm_pruner", 90.0, target="params=0.5", removed=0.5),
        *cells("llm_pruner", 60.0, target="params=0.5", removed=0.5, recovery="grouped"),
        *cells("saap", 30.0, preset="small", recovery="grouped"),
        *cells("saap", 31.0),
        *cells("random", 100.0, recovery="lora"),
    ]
    board = build(records, [])
    matrix = matrix_of(board, "tiny")
    assert matrix is not None
    assert matrix.heads == (
        "method",
        "preset",
        "target",
        "none",
        "grouped",
        "change by grouped (nats/token)",
        "lora",
        "change by lora (nats/token)",
    )
    assert [line[:4:3] + line[4:7:2] for line in matrix.lines] == [
        ("llm_pruner", "45.00 ± 0.40", "–", "32.00 ± 0.40"),
        ("random", "300.0 ± 0.4", "–", "100.0 ± 0.4"),
        ("llm_pruner", "90.00 ± 0.40", "60.00 ± 0.40", "–"),
    ]
    text = markdown(board)
    assert "### Recovery matrix: `wikitext2.ppl_token@2048/limit4`" in text
    assert "| llm_pruner | quick | params=0.5 | 90.00 ± 0.40 | 60.00 ± 0.40 | " in text
    assert "- *Recovery matrix*: " in text


def test_what_a_recovery_changes_is_paired_by_window() -> None:
    records: list[Any] = []
    for method in ("random", "saap"):
        for recovery, shift in (("none", 0.0), ("lora", -0.5)):
            made = artifact(method, recovery=recovery)
            records += [made, windowed(made, "wikitext2@128", [2.0 + shift, 4.0 + shift, 6.0 + shift])]
    matrix = matrix_of(build(records, []), "tiny")
    assert matrix is not None
    assert [(line[0], line[5]) for line in matrix.lines] == [
        (method, "−0.500 (−0.500 – −0.500)") for method in ("random", "saap")
    ]


def test_without_recoveries_there_is_none() -> None:
    board = build([*cells("dense", 20.0), *cells("random", 300.0)], [])
    assert matrix_of(board, "tiny") is None
    assert "Recovery matrix" not in markdown(board)
    alone = build([*cells("dense", 20.0), *cells("saap", 30.0), *cells("random", 31.0, recovery="lora")], [])
    assert matrix_of(alone, "tiny") is None
