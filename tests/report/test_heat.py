"""The heat map of tasks: what it shows, and that its texts keep apart."""

from typing import Any

import pytest

from bench.report.build import build
from bench.report.plots.heat import changes_of, heat_map
from bench.report.plots.style import style
from tests.record.records import accuracy, artifact
from tests.report.boards import PAIR, cells
from tests.report.figures import assert_texts_apart


def test_the_protocols_above_a_heat_map_stay_in_their_columns() -> None:
    records: list[Any] = []
    tasks = ("hellaswag", "winogrande", "arc_challenge", "openbookqa")
    for method, value, removed in (("dense", 0.6, 0.0), ("random", 0.4, 0.2)):
        made = artifact(method, target="none" if method == "dense" else f"params={removed}", removed=removed)
        records += [
            made,
            *(
                accuracy(made, f"{task}@{protocol}/limit500", value, ("acc_norm",), n=500)
                for task in tasks
                for protocol in ("0shot", "0shot+notice")
            ),
        ]
    with style():
        assert_texts_apart(heat_map(build(records, []), "tiny"))


def test_the_heat_map_shows_the_change_of_each_task() -> None:
    records = [
        *cells("dense", 12.0, accuracies=(0.7, 0.6)),
        *cells("saap", 20.0, accuracies=(0.6, 0.65)),
        *cells("random", 90.0, accuracies=(0.5, 0.3))[:-1],
    ]
    board = build([*records, *cells("magnitude", 99.0)[:-2]], [PAIR])
    rows, columns, changes = changes_of(board, "tiny")
    assert [row.identity.method for row in rows] == ["saap"]
    assert [column.name for column in columns] == ["piqa.acc", "hellaswag.acc_norm"]
    assert changes == [pytest.approx([-10.0, 5.0])]
    with style():
        figure = heat_map(board, "tiny")
        assert heat_map(build(records[:6], [PAIR]), "tiny") is None
    assert_texts_apart(figure)
    assert {t.get_text() for t in figure.axes[0].texts} == {"−10.0", "+5.0"}
    assert "smoke" in figure.axes[0].get_xlabel()
