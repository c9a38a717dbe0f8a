"""The site as files: what is on it, that it is text, that every link leads somewhere; browsers: tests/browser."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

import pytest

from bench.record.text import AnyRecord
from bench.registry import load_registry, task_groups
from bench.report.build import build
from bench.report.frame import current
from bench.report.plots.looks import CONTROLS, MARKERS
from bench.report.published import load_published
from bench.report.site import site
from bench.report.site.index import band_of
from bench.report.site.method import _rendered
from bench.report.site.names import SHAPES, number_of, row_href
from bench.report.site.row import bars
from tests.record.records import FAILURE, artifact, continuations, failed, failed_artifact, perplexity
from tests.report.boards import PAIR, SCRIPT, cells, five_hundred, hostile, of_the_hub, smollm

METHODS = load_registry().methods
VOID = {"meta", "link", "input", "img", "br", "wbr", "hr", "path", "circle"}


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page; badly nested tags are an error."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [a for name, a in self.tags if name == tag and wanted.items() <= a.items()]


def made(records: list[AnyRecord], published: Any = ()) -> dict[str, bytes]:
    return site(build(records, [PAIR], published), current(sorted(records, key=lambda r: r.key))[0], METHODS)


def row_of(files: dict[str, bytes], method: str) -> Page:
    [name] = [name for name in files if name.startswith(f"rows/tiny.{method}.")]
    return Page(files[name])


def test_an_index_a_page_for_each_row_and_for_each_method() -> None:
    files = made(smollm())
    assert {name.split("/")[0] for name in files} == {"index.html", "style.css", "board.js", "rows", "methods"}
    assert sum(name.startswith("rows/") for name in files) == 5
    assert {name for name in files if name.startswith("methods/")} == {
        f"methods/{method}.html" for method in ("dense", "random", "magnitude", "llm_pruner")
    }
    index = Page(files["index.html"])
    board, matrix, methods = 1 + 5, 1 + 1, 1 + 4
    assert len(index.all("tr")) == board + matrix + methods
    shown = files["index.html"].decode().partition('class="matrix"')[2].partition("</details>")[0]
    for cell in ("llm_pruner", "params=0.2", "45.00 ± 0.40", "32.00 ± 0.40", "+0.000 (+0.000 – +0.000)"):
        assert f">{cell}</" in shown
    assert [a["href"] for a in index.all("a") if a["href"].startswith("rows/")] == [
        row_href(row.identity) for row in build(smollm(), [PAIR]).rows
    ]


@pytest.mark.parametrize("records", [smollm(), hostile(), of_the_hub(), []], ids=["main job", "hostile", "hub", "none"])
def test_every_link_leads_somewhere_on_the_site_or_to_a_file_of_the_report(records: list[AnyRecord]) -> None:
    files = made(records)
    csv = {f"../{name}.csv" for name in ("leaderboard", "long", "paired", "sides")}
    outside = csv | {"../leaderboard.md", "../reproduction.md"}
    for name, content in files.items():
        page = Page(content) if name.endswith(".html") else None
        ids = {a["id"] for _, a in page.tags if "id" in a} if page else set()
        for tag, attributes in page.tags if page else ():
            for link in (attributes.get("href"), attributes.get("src")):
                if link is None or (tag == "link" and link == "data:,"):
                    continue
                target = urlparse(urljoin(f"http://site/{name}", link))
                path = unquote(target.path.lstrip("/"))
                assert link in outside or path in files, f"{name}: {link}"
                if link.startswith("#"):
                    assert link[1:] in ids


def test_records_with_a_script_in_every_field_are_text_everywhere() -> None:
    files = made(hostile())
    shown = ""
    for name, content in files.items():
        if not name.endswith(".html"):
            continue
        assert re.fullmatch(r"[\w./-]+", name)
        page = Page(content)
        assert [a.get("src") for a in page.all("script")] == ["../board.js" if "/" in name else "board.js"]
        assert page.all("img") == []
        assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
        assert b"default-src 'none'" in content
        assert b"49`" not in content
        shown += page.text
    for field in ("traceback", "command", "machine", "packages", "config"):
        assert SCRIPT.strip() in shown, field
    assert shown.count("<script>window.hit=1</script>") > 50


def test_a_card_is_markdown_and_its_html_is_text() -> None:
    shown = _rendered(
        "# T\n\n**a** <script>hit()</script> [x](javascript:hit()) [y](https://arxiv.org)\n\n|a|\n|-|\n|1|"
    )
    assert "<h1>" not in shown
    assert "<strong>a</strong>" in shown
    assert "<table>" in shown
    assert "<script" not in shown
    assert 'href="javascript' not in shown
    assert 'href="https://arxiv.org"' in shown


def test_a_row_says_how_to_make_it_again() -> None:
    command = ["leanboard", "run", "smollm suite", "--only", "method=saap", "--only", "task=piqa", "--jobs", "2"]
    where = artifact().provenance.model_copy(update={"command": command, "commit": "abc123", "dirty": True})
    record = artifact("saap", provenance=where)
    page = row_of(made([record, perplexity(record, 30.0)]), "saap")
    assert (
        "git checkout abc123\nleanboard run 'smollm suite' --jobs 2 --only model=tiny --only method=saap "
        "--only preset=quick --only recovery=none --only target=params=0.2"
    ) in page.text
    assert "abc123, with changes" in page.text
    assert "layers=[1, 2]" in page.text


def test_what_a_checkpoint_writes_stands_beside_what_the_dense_model_writes() -> None:
    dense, pruned = artifact("dense", target="none"), artifact("saap")
    lines = (("A fox", "ran <b>off</b>.", "hid."), ("The mill", "is.", "was old."))
    files = made(
        [dense, continuations(dense, *((a, c, c) for a, _, c in lines)), pruned, continuations(pruned, *lines)]
    )
    assert "What it writes" in row_of(files, "dense").text
    assert row_of(files, "dense").text.count("was old.") == 1
    page = row_of(files, "saap").text
    assert all(text in page for line in lines for text in line)
    assert "What it writes" not in row_of(made([pruned, perplexity(pruned, 30.0)]), "saap").text


def test_what_is_left_of_each_layer_is_drawn_against_the_dense_model() -> None:
    dense = artifact("dense", target="none", widths=[(4, 4, 96), (4, 4, 96)])
    pruned = artifact("saap", widths=[(4, 4, 96), (3, 3, 48)])
    files = made([dense, pruned])
    page = row_of(files, "saap")
    [heads, channels] = page.all("path", **{"class": "kept"})
    assert heads["d"] == bars([1.0, 0.75]) == "M1 56v-56.0h8V56zM11 56v-42.0h8V56z"
    assert channels["d"] == bars([1.0, 0.5])
    assert "3 to 4 of 4 a layer" in page.text
    assert "All heads and channels of every layer" in row_of(files, "dense").text
    alone = row_of(made([pruned]), "saap")
    assert "the dense widths are not on record" in alone.text


def test_failures_stand_with_stage_message_and_traceback() -> None:
    broken = failed_artifact("saap")
    good = artifact("random")
    files = made([broken, good, failed(good, "piqa@0shot")])
    page = row_of(files, "saap")
    assert f"failed:nan_loss in compress. {FAILURE.message}" in page.text
    assert FAILURE.traceback in page.text
    assert "piqa@0shot, seed 0: failed:nan_loss in measure" in row_of(files, "random").text
    assert "What failed" not in row_of(made([good]), "random").text


def test_ranks_ties_gates_and_signals_are_shown() -> None:
    records = [*cells("dense", 20.0), *cells("saap", 30.0), *cells("wanda_sp", 30.0), *cells("random", 300.0)]
    board = build(records, [PAIR])
    index = Page(made(records)["index.html"])
    assert f"dense gate {board.gates['tiny'].state}" in index.text
    for row in board.rows:
        standing = board.standing(row.identity)
        [line] = [a for a in index.all("tr") if a.get("data-find", "").startswith(row.identity.method + " ")]
        assert bool(line.get("data-ties")) == bool(standing and standing.ties)


def test_published_numbers_stand_on_the_page_of_their_method(tmp_path: Path) -> None:
    records = [*cells("llm_pruner", 20.0, model="llama-7b"), *cells("dense", 12.0, model="llama-7b")]
    board = build(records, task_groups(), load_published(tmp_path))
    mine = [c for c in board.published if c.published.row.of == "llm_pruner"]
    assert mine
    files = site(board, current(records)[0], METHODS)
    page = Page(files["methods/llm_pruner.html"])
    shown = files["methods/llm_pruner.html"].decode().split('id="published"')[1]
    assert shown.count("<tr>") == len(mine) + len({c.state for c in mine})
    for state in {c.state for c in mine}:
        assert f"{sum(c.state == state for c in mine)} {state}" in page.text
    assert any(f"{c.state}: {c.why}" in page.text for c in mine if c.why)
    index = Page(files["index.html"])
    assert f"{sum(c.state == 'not run' for c in board.published)} not run" in index.text


def test_a_method_without_its_plug_in_still_has_a_page() -> None:
    page = Page(made(cells("gone_method", 30.0))["methods/gone_method.html"])
    assert "Its card is not at hand" in page.text
    assert "operating points" in page.text


def test_numbers_carry_what_a_plot_and_a_tooltip_need() -> None:
    board = build([*cells("saap", 30.0), *cells("saap", 40.0, seed=1)], [PAIR])
    [row] = board.rows
    ppl = number_of(row.cells["wikitext2.ppl_token@2048/limit4"], "ppl")
    assert (ppl.text, ppl.error, ppl.value) == ("35.00", "± 7.07", "35")
    assert "standard deviation between seeds; n = 8,188; 2 seeds" in ppl.tip
    speed = number_of(build(cells("saap", 30.0), [PAIR]).rows[0].cells["generate.speedup@hf/b1/p64/n128"], "ratio")
    assert (speed.text, speed.error, speed.low, speed.high) == ("1.20×", "1.16–1.22", "1.164", "1.224")
    assert number_of(None, "ppl").text == "–"
    assert band_of(row) == "15 to 30 %"
    assert set(SHAPES) == {*MARKERS, *(marker for _, marker in CONTROLS.values())}


def test_five_hundred_records_stay_under_five_megabytes() -> None:
    assert sum(map(len, made(five_hundred()).values())) < 5_000_000
