"""The site as people use it: sort, filter, point, open; by mouse, by keys, on a phone, in the dark."""

from pathlib import Path
from typing import Any

import pytest

from bench.record.text import AnyRecord
from tests.browser.conftest import Open
from tests.report.boards import SCRIPT, cells, five_hundred, hostile

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "results"
PPL = "wikitext2.ppl_token@2048/limit4"
SPEED = "generate.speedup@hf/b1/p64/n128"


FOCUSED = """() => {
    const one = document.activeElement;
    return [one.id || one.getAttribute("class") || one.localName, getComputedStyle(one).outlineStyle !== "none",
            Boolean(one.closest("svg"))];
}"""
FILTERS = """(texts) => texts.map((text) => {
    const box = document.querySelector("#find"), start = performance.now();
    box.value = text;
    box.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();
    return performance.now() - start;
})"""
COLOURS = """() => {
    const { color, backgroundColor } = getComputedStyle(document.documentElement);
    return [color, backgroundColor];
}"""


def board() -> list[AnyRecord]:
    records = [*cells("dense", 20.0), *cells("random", 300.0), *cells("magnitude", 900.0, ratio=1.15)]
    records += [*cells("llm_pruner", 45.0, ratio=1.18), *cells("llm_pruner", 32.0, recovery="lora", ratio=1.18)]
    records += [*cells("saap", 90.0, removed=0.5, target="params=0.5", ratio=1.6), *cells("trawl", 600.0, ratio=1.1)]
    return [*records, *cells("lora", 19.0, target="none", removed=0.0, model="other")]


@pytest.fixture
def site(folder: Any) -> Path:
    return Path(folder("board", board))


def shown(page: Any, model: str = "tiny") -> list[str]:
    """Methods of the rows that are to be seen, from above."""
    found = page.locator(f"section[data-model='{model}'] tbody tr:visible .who b").all_inner_texts()
    return [str(name) for name in found]


def head(page: Any, metric: str, model: str = "tiny") -> Any:
    return page.locator(f"section[data-model='{model}'] th[data-id='{metric}']")


def test_sorting_by_a_column_and_back(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    assert shown(page)[0] == "dense"
    column = head(page, PPL)
    column.get_by_role("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert shown(page) == ["dense", "llm_pruner", "llm_pruner", "saap", "random", "trawl", "magnitude"]
    column.get_by_role("button").press("Enter")
    assert column.get_attribute("aria-sort") == "descending"
    assert shown(page)[0] == "magnitude"
    speed = head(page, SPEED)
    speed.get_by_role("button").click()
    assert (speed.get_attribute("aria-sort"), column.get_attribute("aria-sort")) == ("descending", None)
    assert shown(page)[0] == "saap"
    page.locator("section[data-model='tiny'] th.who button").first.click()
    assert shown(page) == sorted(shown(page))


def test_filters_leave_what_is_asked_for_in_table_and_plot(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    assert page.locator("#count").inner_text() == "8 rows"
    page.select_option("#track", "decomposition")
    assert shown(page) == ["trawl"]
    assert page.locator("#count").inner_text() == "1 of 8 rows"
    assert page.locator("section[data-model='other'] .empty").is_visible()
    page.select_option("#track", "")
    page.select_option("#band", "over 45 %")
    assert shown(page) == ["saap"]
    page.select_option("#band", "")
    page.fill("#find", "pruner LORA")
    assert shown(page) == ["llm_pruner"]
    assert page.locator("section[data-model='tiny'] .plot a").count() == 1
    page.fill("#find", "")
    page.select_option("#model", "other")
    assert not page.locator("section[data-model='tiny']").is_visible()
    assert shown(page, "other") == ["lora"]


def test_other_columns_on_demand(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    accuracy, disk = head(page, "piqa.acc@0shot/limit20"), head(page, "bytes.disk")
    assert not accuracy.is_visible()
    page.select_option("#view", "a")
    assert accuracy.is_visible()
    assert not head(page, PPL).is_visible()
    page.select_option("#view", "all")
    assert disk.is_visible()
    assert head(page, PPL).is_visible()


def test_opening_a_row_from_the_table_and_from_the_plot(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    page.locator("tbody .who a", has_text="saap").click()
    assert "saap" in page.locator("h1").inner_text()
    assert page.get_by_text("leanboard run").is_visible()
    page.get_by_role("link", name="About the method").click()
    assert page.locator("h1").inner_text().startswith("SAAP")
    page.get_by_role("link", name="Leanboard").click()
    page.locator(".plot a[aria-label^='magnitude']").first.click()
    assert "magnitude" in page.locator("h1").inner_text()


def test_the_plot_follows_its_axes_and_marks_the_front(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    plot = page.locator("section[data-model='tiny'] .plot")
    assert plot.locator("a").count() == 7
    stair = plot.locator(".front").get_attribute("d")
    plot.locator(".x").select_option(label="speed-up hf/b1/p64/n128")
    assert plot.locator("text", has_text="speed-up").is_visible()
    assert plot.locator(".front").get_attribute("d") != stair
    plot.locator("a[aria-label^='saap']").focus()
    assert "saap" in page.locator("#tip").inner_text()
    assert "tr" in page.locator("tr.lit").evaluate_all("rows => rows.map(row => row.localName)")


def one_size() -> list[AnyRecord]:
    return [*cells("dense", 20.0), *cells("saap", 90.0, removed=0.1253), *cells("trawl", 30.0, removed=0.1247)]


def test_sizes_that_meet_one_target_are_one_size_on_the_front(folder: Any, visit: Open) -> None:
    page = visit(folder("one_size", one_size) / "index.html")
    assert page.locator(".plot a").count() == 3
    assert page.locator(".plot .front").get_attribute("d").count("V") == 1


def crowd() -> list[AnyRecord]:
    methods = [record for m in range(12) for record in cells(f"method_{m}", 40.0 + 0.1 * m)]
    return [*cells("dense", 20.0), *methods, *cells("saap", 90.0, removed=0.5, target="params=0.5")]


def test_a_point_in_a_crowd_is_drawn_near_its_place(folder: Any, visit: Open) -> None:
    page = visit(folder("crowd", crowd) / "index.html")
    circles = page.locator(".plot a[aria-label^='method_'] circle:last-of-type")
    across = [float(one.get_attribute("cx")) for one in circles.all()]
    assert len(across) == 12
    assert 13 <= max(across) - min(across) <= 6.01 * 13


@pytest.mark.parametrize("tree", [".", "full", "saap-ablation", "serving"])
def test_the_committed_sites_draw_their_plots_without_complaint(tree: str, visit: Open) -> None:
    page = visit(RESULTS / tree / "site" / "index.html")
    for section in page.locator("section.model").all():
        has_quality = section.locator(".board th[data-axis=y]").count() > 0
        assert (section.locator(".plot a").count() > 1) == has_quality
    for summary in page.locator("details.matrix summary").all():
        rows = page.locator(".board tbody tr:visible").count()
        summary.click()
        assert page.locator(".matrix tbody tr").first.is_visible()
        page.fill("#find", "random")
        assert 0 < page.locator(".board tbody tr:visible").count() < rows


def test_tooltips_by_mouse_and_by_keys_tell_protocol_and_n(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    tip = page.locator("#tip")
    assert not tip.is_visible()
    head(page, PPL).get_by_role("button").focus()
    assert f"{PPL}; lower is better" in tip.inner_text()
    page.locator("section[data-model='tiny'] tbody .who a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "n = 8,188" in tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').dataset.label") != "dense"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    head(page, SPEED).hover()
    assert "higher is better" in tip.inner_text()


def test_all_controls_can_be_reached_by_keys_and_show_the_focus(site: Path, visit: Open) -> None:
    page = visit(site / "index.html")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, is_outlined, in_plot = page.evaluate(FOCUSED)
        seen.add(name)
        assert is_outlined or in_plot, name
    assert {"skip", "brand", "theme", "find", "model", "track", "band", "view", "x", "y", "button", "a"} <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_lights(site: Path, visit: Open, scheme: str) -> None:
    for path in (site / "index.html", next(site.glob("rows/*saap*")), site / "methods" / "saap.html"):
        page = visit(path, viewport={"width": 380, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 380, path.name
        ink, paper = page.evaluate(COLOURS)
        assert (luminance(ink) < luminance(paper)) == (scheme == "light")
        page.locator(".theme").click()
        assert luminance(page.evaluate(COLOURS)[0]) != luminance(ink)


def luminance(colour: str) -> float:
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])


@pytest.mark.perf
def test_a_filter_of_five_hundred_records_answers_within_a_tenth_of_a_second(folder: Any, visit: Open) -> None:
    page = visit(folder("five_hundred", five_hundred) / "index.html")
    took = [page.evaluate(FILTERS, ["saap", "", "0.4", "trawl 0.3", ""]) for _ in range(3)]
    assert max(min(times) for times in zip(*took, strict=True)) < 100


def test_a_filter_of_five_hundred_records_leaves_what_fits(folder: Any, visit: Open) -> None:
    page = visit(folder("five_hundred", five_hundred) / "index.html")
    assert page.locator("#count").inner_text() == "56 rows"
    page.fill("#find", "saap")
    assert page.locator("#count").inner_text() == "6 of 56 rows"


def test_a_script_in_every_field_of_a_record_never_runs(folder: Any, visit: Open) -> None:
    site = folder("hostile", hostile)
    pages = [site / "index.html", *sorted(site.glob("*/*.html"))]
    assert len(pages) > 8
    for path in pages:
        page = visit(path)
        for opened in page.locator("details").all():
            opened.evaluate("element => { element.open = true; }")
        for owner in page.locator("tbody [data-tip]:visible").all()[:1]:
            owner.hover()
        assert page.evaluate("window.hit") is None
        assert page.locator("script:not([src])").count() == page.locator("img").count() == 0
        assert SCRIPT.strip().split("'")[0] in page.locator("body").inner_text()
