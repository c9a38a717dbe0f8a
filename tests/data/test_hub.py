import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from email.message import Message
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from bench.data import hub


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    hub.hub_answers.cache_clear()
    yield
    hub.hub_answers.cache_clear()


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda *args: pytest.fail("asked"))
    assert "offline" in hub.why_no_hub(offline=True)


def test_a_hub_that_hangs_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered, hangs = [], [], threading.Event()
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(hub, "_ask", lambda *args: asked.append(args) or answered.append(hangs.wait(60)))
    assert hub.why_no_hub(offline=False) == hub.why_no_hub(offline=False) == "the model hub does not answer"
    assert (len(asked), answered) == (1, [])
    hangs.set()


@pytest.mark.parametrize(("status", "usable"), [(200, True), (401, True), (404, True), (403, False), (503, False)])
def test_a_proxy_that_forbids_the_hub_is_no_hub(monkeypatch: pytest.MonkeyPatch, status: int, usable: bool) -> None:

    def answer(request: Request, timeout: float) -> AbstractContextManager[SimpleNamespace]:
        if status >= 400:
            raise HTTPError("url", status, "", Message(), None)
        return nullcontext(SimpleNamespace(status=status))

    monkeypatch.setattr(hub, "urlopen", answer)
    assert (hub.why_no_hub(offline=False) is None) == usable
