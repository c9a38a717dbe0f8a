import itertools
from typing import Any

import pytest
from matplotlib.text import Text

from bench.record.text import AnyRecord
from bench.report.build import build
from bench.report.plots import KINDS, plots
from bench.report.plots.labels import is_inside, lines_of, marker_box
from bench.report.plots.looks import COLOURS, CONTROLS, KNOWN, MARKERS, Series, look, looks
from bench.report.plots.points import Point
from bench.report.plots.retention import curves, retention_curve
from bench.report.plots.scatter import REACH, STEP, _drawn, axes_of, points_of
from bench.report.plots.style import style
from tests.record.records import accuracy, artifact, perplexity, speed
from tests.report.boards import PAIR, cells, smollm
from tests.report.figures import assert_texts_apart, scatter

SCATTER = ("size", "speed", "memory", "cost")


def crowd(methods: int, targets: int) -> list[AnyRecord]:
    records = cells("dense", 12.0)
    for m, t in itertools.product(range(methods), range(targets)):
        name = KNOWN[m] if m < len(KNOWN) else f"another_method_{m}"
        removed = 0.2 + 0.15 * t
        records += cells(
            name, 13.0 + 0.4 * m + 20 * t, target=f"params={removed:g}", removed=removed, ratio=1.1 + 0.01 * m + 0.1 * t
        )
    return records


def close() -> list[AnyRecord]:
    """Points that lie on one another."""
    return [*cells("dense", 12.0), *(r for name in KNOWN[:5] for r in cells(name, 18.0, ratio=1.1))]


def ablation() -> list[AnyRecord]:
    """A method with many presets, at one size and another, with and without recovery."""
    records = cells("dense", 12.0)
    for i, (preset, recovery) in enumerate(itertools.product(("quick", "element", "mean", "no_asi"), ("none", "lora"))):
        for removed in (0.2, 0.35):
            records += cells(
                "saap", 20.0 + i, preset=preset, recovery=recovery, target=f"params={removed}", removed=removed
            )
    return records


BOARDS = {
    "main job": smollm(),
    "labelled": crowd(10, 1),
    "legend": crowd(12, 3),
    "long legend": crowd(40, 2),
    "on one another": close(),
    "presets": ablation(),
}


@pytest.mark.parametrize("records", BOARDS.values(), ids=BOARDS)
@pytest.mark.parametrize("kind", SCATTER)
def test_no_text_is_cut_or_covers_another(records: list[AnyRecord], kind: str) -> None:
    points, figure = scatter(build(records, [PAIR]), kind)
    assert_texts_apart(figure)
    [axes] = figure.axes
    names = {t.get_text() for t in axes.texts} or {t.get_text() for g in figure.legends for t in g.get_texts()}
    assert {point.row.identity.method for point in points} <= {name.split()[0] for name in names}
    assert bool(axes.texts) != bool(figure.legends)


@pytest.mark.parametrize("records", [smollm(), crowd(10, 1)], ids=["main job", "labelled"])
@pytest.mark.parametrize("kind", ["size", "speed"])
def test_labels_keep_clear_of_markers_and_lines(records: list[AnyRecord], kind: str) -> None:
    _, figure = scatter(build(records, [PAIR]), kind)
    [axes] = figure.axes
    assert axes.texts
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 1]
    with style():
        figure.draw_without_rendering()
        labels = [Text.get_window_extent(t, figure.canvas.get_renderer()) for t in axes.texts]
        centres = [axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in drawn]
    for label in labels:
        assert is_inside(label, axes.get_window_extent())
        assert not any(label.padded(4 * figure.dpi / 72).contains(*centre) for centre in centres)
        assert not any(line.intersects_bbox(label, filled=False) for line in lines_of(axes))


def test_of_several_workloads_the_largest_is_drawn() -> None:
    records = smollm()
    made = [record for record in records if record.kind == "artifact"]
    for protocol in ("hf/b1/p64/n128", "vllm/b8/p32/n12", "vllm/b32/p32/n12"):
        records += [speed(record, 1.1, f"generate@{protocol}") for record in made]
    axes = {axis.kind: axis.column.id for axis in axes_of(build(records, [PAIR]), "tiny")}
    assert axes["speed"] == "generate.speedup@vllm/b32/p32/n12"
    assert axes["memory"] == "generate.peak_memory@vllm/b32/p32/n12"


def placed_on(records: list[AnyRecord], kind: str) -> tuple[list[Point], Any, list[Point]]:
    board = build(records, [PAIR])
    [axis] = [axis for axis in axes_of(board, "tiny") if axis.kind == kind]
    quality = next(c for c in board.columns if c.id == board.quality["tiny"])
    points = points_of(board, "tiny", axis, quality)
    with style():
        _, axes, placed = _drawn(points, "tiny", axis, quality, has_legend=True)
    return points, axes, placed


@pytest.mark.parametrize(
    "records",
    [*(records for name, records in BOARDS.items() if name != "legend"), crowd(4, 3)],
    ids=[*(name for name in BOARDS if name != "legend"), "few and far"],
)
@pytest.mark.parametrize("kind", ["size", "memory"])
def test_no_marker_covers_another(records: list[AnyRecord], kind: str) -> None:
    """Rows of one size lie side by side; what they are is not changed."""
    points, axes, placed = placed_on(records, kind)
    boxes = [marker_box(axes, point).padded(-1.0) for point in placed]
    assert [(p.x, p.y) for p in placed] == [(p.x, p.y) for p in points]
    for (one, a), (two, b) in itertools.combinations(zip(placed, boxes, strict=True), 2):
        assert not a.overlaps(b), f"{one.label} and {two.label}"


@pytest.mark.parametrize("kind", ["size", "memory"])
def test_in_a_crowd_no_point_is_far_from_its_place(kind: str) -> None:
    """Else it would tell another number; each keeps a spot of its own as long as there is one."""
    records = [*crowd(20, 2), *cells("lora", 11.9, target="none", removed=0.0)]
    _, axes, placed = placed_on(records, kind)
    step = STEP * axes.figure.dpi / 72
    assert all(p.at == p.x for p in placed if p.is_dense)
    spots = [axes.transData.transform((p.at, p.y)) for p in placed]
    moved = [abs(spot[0] - axes.transData.transform((p.x, p.y))[0]) for p, spot in zip(placed, spots, strict=True)]
    assert 0 < max(moved) <= 1.01 * REACH * step
    assert min(max(abs(one - two)) for one, two in itertools.combinations(spots, 2)) > 0.2 * step


def test_a_point_with_an_interval_along_x_stays_where_it_is() -> None:
    placed = placed_on(close(), "speed")[2]
    assert len({point.x for point in placed}) < len(placed)
    assert [point.at for point in placed] == [point.x for point in placed]


def test_series_of_one_method_are_told_apart_and_keep_its_colour() -> None:
    board = build([*ablation(), *cells("llm_pruner", 30.0), *cells("llm_pruner", 25.0, recovery="lora")], [PAIR])
    found = looks(row.identity for row in board.rows)
    assert len(set(found.values())) == len(found) == 11
    assert {one.colour for series, one in found.items() if series.method == "saap"} == {look("saap")[0]}
    assert {one.letter for series, one in found.items() if series.method == "llm_pruner"} == {""}
    assert "".join(one.letter for series, one in sorted(found.items()) if series.method == "saap") == "abcdefgh"
    assert [one.is_filled for _, one in sorted(found.items())][-2:] == [False, True]


def test_labels_beside_few_points_and_a_legend_for_many() -> None:
    for records, has_legend in ((smollm(), False), (crowd(12, 3), True)):
        _, figure = scatter(build(records, [PAIR]), "size")
        assert bool(figure.legends) == has_legend


def test_axes_name_unit_and_protocol_and_the_scale_follows_the_range() -> None:
    [axes] = scatter(build(smollm(), [PAIR]), "speed")[1].axes
    assert axes.get_yscale() == "log"
    assert "2048/limit4" in axes.get_ylabel()
    assert "wikitext2 perplexity" in axes.get_ylabel()
    assert "(×), hf/b1/p64/n128" in axes.get_xlabel()
    narrow = [*cells("dense", 20.0), *cells("random", 45.0), *cells("llm_pruner", 40.0)]
    [axes] = scatter(build(narrow, [PAIR]), "size")[1].axes
    assert axes.get_yscale() == "linear"
    assert "(%)" in axes.get_xlabel()
    [axes] = scatter(build(smollm(), [PAIR]), "memory")[1].axes
    assert "(GB), hf/b1/p64/n128; left is smaller" in axes.get_xlabel()


def test_errors_are_drawn_from_intervals_and_standard_errors() -> None:
    points, _ = scatter(build(smollm(), [PAIR]), "speed")
    [point] = [p for p in points if p.row.identity.method == "random"]
    assert point.y_error == (0.4, 0.4)
    assert point.x_error == pytest.approx((1.2 * 0.03, 1.2 * 0.02))


def test_a_mean_is_plotted_in_percent_where_there_is_no_perplexity() -> None:
    records: list[Any] = []
    for method, value, removed in (("dense", 0.6, 0.0), ("random", 0.4, 0.2), ("random", 0.3, 0.3)):
        made = artifact(method, target="none" if method == "dense" else f"params={removed}", removed=removed)
        records += [
            made,
            *(accuracy(made, f"{task}@0shot", value, ("acc", "acc_norm"), n=500) for task in ("piqa", "hellaswag")),
        ]
    board = build(records, [PAIR])
    assert board.quality["tiny"] == "pair.mean@0shot"
    assert [point.y for point in scatter(board, "size")[0]] == pytest.approx([60.0, 40.0, 30.0])


def test_what_is_kept_of_the_dense_quality_size_by_size() -> None:
    board = build(crowd(3, 3), [PAIR])
    quality = next(c for c in board.columns if c.id == board.quality["tiny"])
    lines = curves(board, "tiny", quality, 12.0)
    assert len(lines) == 3
    line = lines[Series("llm_pruner", "quick", "none")]
    for mark, removed, ppl in zip(line, (20, 35, 50), (13, 33, 53), strict=True):
        kept = 100 * 12 / ppl
        assert mark == pytest.approx((removed, kept, kept * 0.4 / ppl))
    with style():
        figure = retention_curve(board, "tiny", quality)
        assert retention_curve(build(crowd(3, 1), [PAIR]), "tiny", quality) is None
        without = [r for r in crowd(3, 2) if r.method != "dense"]
        assert retention_curve(build(without, [PAIR]), "tiny", quality) is None
    assert_texts_apart(figure)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["compresso", "llm_pruner", "saap"]


def test_known_methods_all_look_different_and_unknown_ones_keep_their_look() -> None:
    looks = [look(name) for name in (*CONTROLS, *KNOWN)]
    assert len(set(looks)) == len(looks)
    assert look("my_method") == look("my_method")
    assert look("my_method")[0] in COLOURS
    assert look("my_method")[1] in MARKERS


def kinds(records: list[AnyRecord]) -> set[str]:
    return {name.split(".")[1] for name in plots(build(records, [PAIR]))}


def test_a_plot_only_where_there_is_something_to_see() -> None:
    assert kinds([]) == set()
    assert kinds(cells("dense", 20.0)) == set()
    one_size = [*cells("dense", 20.0), *cells("random", 60.0), *cells("saap", 40.0)]
    assert kinds(one_size) == {"change-by-task"}
    assert kinds([*one_size, *cells("wanda_sp", 50.0, ratio=1.3)]) == {
        "change-by-task",
        "quality-vs-speed",
        "quality-vs-memory",
    }
    assert kinds([*one_size, *cells("saap", 50.0, removed=0.3, target="params=0.3")]) == {
        "change-by-task",
        "quality-vs-size",
        "retention",
    }
    made = [artifact("dense", target="none"), artifact("random")]
    made.append(artifact("saap", cost=made[1].cost.model_copy(update={"seconds": {"compress": 60.0}})))
    assert kinds([*made, *(perplexity(record, 20.0) for record in made)]) == {"quality-vs-cost"}


def test_formats_and_metadata() -> None:
    files = plots(build(crowd(3, 2), [PAIR]))
    drawn = ["quality-vs-size", "quality-vs-speed", "quality-vs-memory", "retention", "change-by-task"]
    assert set(drawn) < set(KINDS)
    assert sorted(files) == sorted(f"tiny.{kind}.{ext}" for kind in drawn for ext in ("png", "svg"))
    png, svg = files["tiny.quality-vs-size.png"], files["tiny.quality-vs-size.svg"].decode()
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert "<dc:date>" not in svg
    assert "<text" not in svg


def test_any_model_name_makes_a_file_name_and_a_title() -> None:
    name = "../../etc/$\\frac{$ <b>\n" + "x" * 100
    records = [r.model_copy(update={"model": name}) for r in smollm()]
    assert all("/" not in file for file in plots(build(records, [PAIR])))
