"""A real Chromium, Debian's, that opens the site from its folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.record.text import AnyRecord
from bench.registry import load_registry
from bench.report.build import build
from bench.report.frame import current
from bench.report.site import site
from tests.report.boards import PAIR

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    import shutil

    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra 'test' has it)")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], list[AnyRecord]]], Path]:
    """Writes the site of some records, once for each name."""
    made: dict[str, Path] = {}

    def write(name: str, records: Callable[[], list[AnyRecord]]) -> Path:
        if name not in made:
            found = sorted(records(), key=lambda record: record.key)
            made[name] = tmp_path_factory.mktemp(name) / "site"
            for path, content in site(build(found, [PAIR]), current(found)[0], load_registry().methods).items():
                (made[name] / path).parent.mkdir(parents=True, exist_ok=True)
                (made[name] / path).write_bytes(content)
        return made[name]

    return write


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a file; afterwards no page may have complained, nor asked for anything outside its site."""
    troubles: list[str] = []
    contexts = []

    def visit_page(path: Path, **settings: Any) -> Any:
        root = next(parent for parent in path.parents if parent.name == "site").as_uri()
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((root, "data:")) else troubles.append(f"outside: {request.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield visit_page
    for context in contexts:
        context.close()
    assert troubles == []
