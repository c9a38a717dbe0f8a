import threading
from collections.abc import Iterator

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


@pytest.mark.parametrize(("status", "usable"), [(200, True), (403, False), (503, False)])
def test_only_a_good_answer_counts(monkeypatch: pytest.MonkeyPatch, status: int, usable: bool) -> None:
    monkeypatch.setattr(hub, "_ask", lambda url, answers: answers.append(status))
    assert (hub.why_no_hub(offline=False) is None) == usable
