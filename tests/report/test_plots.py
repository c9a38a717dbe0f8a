import itertools
from typing import Any

import pytest
from matplotlib.text import Text

from bench.record.store import AnyRecord
from bench.report.build import build
from bench.report.labels import GAP, is_inside, lines_of, marker_box
from bench.report.plots import COLOURS, CONTROLS, KNOWN, MARKERS, _points, _style, draw, look, plots
from tests.record.records import accuracy, artifact, perplexity
from tests.report.boards import PAIR, cells, smollm


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
    return [*cells("dense", 12.0), *(r for name in KNOWN[:6] for r in cells(name, 18.0, ratio=1.1))]


def texts_of(figure: Any) -> list[Any]:
    [axes] = figure.axes
    legend = [text for legend in figure.legends for text in legend.get_texts()]
    ticks = [t for t in (*axes.get_xticklabels(), *axes.get_yticklabels()) if t.get_text()]
    inside = [t for t in ticks if is_inside_axes(t, axes)]
    return [*axes.texts, *legend, *inside, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]


def is_inside_axes(tick: Any, axes: Any) -> bool:
    """Tick labels outside the limits are not drawn."""
    x, y = tick.get_position()
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return x0 <= x <= x1 if tick in axes.get_xticklabels() else y0 <= y <= y1


@pytest.mark.parametrize("records", [smollm(), crowd(10, 1), crowd(12, 3), crowd(40, 2), close()],
                         ids=["main job", "labelled", "legend", "long legend", "on one another"])
@pytest.mark.parametrize("kind", ["removed.params", "generate.speedup@hf/b1/p64/n128"])
def test_no_text_is_cut_or_covers_another(records: list[AnyRecord], kind: str) -> None:
    board = build(records, [PAIR])
    column = {c.id: c for c in board.columns}
    quality = column[board.quality["tiny"]]
    points = _points(board, "tiny", column[kind], quality)
    with _style():
        figure = draw(points, "tiny", column[kind], quality)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts_of(figure) if t.get_text()]
        for text, box in boxes:
            assert is_inside(box, figure.bbox), f"{text} is cut"
        for (one, a), (two, b) in itertools.combinations(boxes, 2):
            assert not a.overlaps(b), f"{one} and {two} overlap"
        [axes] = figure.axes
        labels = [Text.get_window_extent(t, renderer) for t in axes.texts]
        names = {t.get_text() for t in axes.texts} or {t.get_text() for g in figure.legends for t in g.get_texts()}
        markers = [marker_box(axes, point) for point in points]
    assert {point.row.identity.method for point in points} <= {name.split()[0] for name in names}
    assert bool(labels) != bool(figure.legends)
    for label in labels:
        assert is_inside(label, axes.get_window_extent())
        assert not any(label.padded(GAP / 2).overlaps(marker) for marker in markers)
        assert not any(line.intersects_bbox(label, filled=False) for line in lines_of(axes))


def test_labels_beside_few_points_and_a_legend_for_many() -> None:
    for records, has_legend in ((smollm(), False), (crowd(12, 3), True)):
        board = build(records, [PAIR])
        column = {c.id: c for c in board.columns}
        quality = column[board.quality["tiny"]]
        with _style():
            figure = draw(_points(board, "tiny", column["removed.params"], quality), "tiny", column["removed.params"],
                          quality)
        assert bool(figure.legends) == has_legend


def test_axes_name_unit_and_protocol_and_the_scale_follows_the_range() -> None:
    board = build(smollm(), [PAIR])
    column = {c.id: c for c in board.columns}
    quality, speed = column[board.quality["tiny"]], column["generate.speedup@hf/b1/p64/n128"]
    with _style():
        [axes] = draw(_points(board, "tiny", speed, quality), "tiny", speed, quality).axes
        assert axes.get_yscale() == "log"
        assert "2048/limit4" in axes.get_ylabel()
        assert "wikitext2 perplexity" in axes.get_ylabel()
        assert "(×), hf/b1/p64/n128" in axes.get_xlabel()
        removed = column["removed.params"]
        narrow = [p for p in _points(board, "tiny", removed, quality) if p.y < 50]
        [axes] = draw(narrow, "tiny", removed, quality).axes
        assert axes.get_yscale() == "linear"
        assert "(%)" in axes.get_xlabel()


def test_errors_are_drawn_from_intervals_and_standard_errors() -> None:
    board = build(smollm(), [PAIR])
    column = {c.id: c for c in board.columns}
    speed = column["generate.speedup@hf/b1/p64/n128"]
    [point] = [p for p in _points(board, "tiny", speed, column[board.quality["tiny"]])
               if p.row.identity.method == "random"]
    assert point.y_error == (0.4, 0.4)
    assert point.x_error == pytest.approx((1.2 * 0.03, 1.2 * 0.02))


def test_a_mean_is_plotted_in_percent_where_there_is_no_perplexity() -> None:
    records = []
    for method, value in (("dense", 0.6), ("random", 0.4)):
        made = artifact(method, target="none" if method == "dense" else "params=0.2")
        records += [made, *(accuracy(made, f"{task}@0shot", value, ("acc", "acc_norm"), n=500)
                            for task in ("piqa", "hellaswag"))]
    board = build(records, [PAIR])
    column = {c.id: c for c in board.columns}
    points = _points(board, "tiny", column["removed.params"], column["pair.mean@0shot"])
    assert [point.y for point in points] == pytest.approx([60.0, 40.0])
    assert set(plots(board)) == {"tiny.quality-vs-size.png", "tiny.quality-vs-size.svg"}


def test_known_methods_all_look_different_and_unknown_ones_keep_their_look() -> None:
    looks = [look(name) for name in (*CONTROLS, *KNOWN)]
    assert len(set(looks)) == len(looks)
    assert look("my_method") == look("my_method")
    assert look("my_method")[0] in COLOURS
    assert look("my_method")[1] in MARKERS


def test_no_plot_where_there_is_nothing_to_show() -> None:
    assert plots(build([], [])) == {}
    assert plots(build(cells("dense", 20.0), [PAIR])) == {}
    made = artifact("random")
    assert plots(build([made], [])) == {}
    without_speed = [artifact("dense", target="none"), made]
    without_speed += [perplexity(record, 20.0) for record in without_speed]
    assert set(plots(build(without_speed, []))) == {"tiny.quality-vs-size.png", "tiny.quality-vs-size.svg"}


def test_formats_and_metadata() -> None:
    files = plots(build(smollm(), [PAIR]))
    assert sorted(files) == [f"tiny.quality-vs-{kind}.{ext}" for kind in ("size", "speed") for ext in ("png", "svg")]
    png, svg = files["tiny.quality-vs-size.png"], files["tiny.quality-vs-size.svg"].decode()
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert "<dc:date>" not in svg
    assert "<text" not in svg


def test_any_model_name_makes_a_file_name_and_a_title() -> None:
    name = "../../etc/$\\frac{$ <b>\n" + "x" * 100
    records = [r.model_copy(update={"model": name}) for r in smollm()]
    assert all("/" not in file for file in plots(build(records, [PAIR])))
