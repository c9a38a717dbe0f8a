import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.hub import Hub

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Of each process, before it imports torch: tiny matrices are slower on several threads, on a busy machine much."""
LONG = ("slow", "product", "faults", "perf", "network", "vllm")
MOST_CPU_SECONDS = 10.0
"""Of a test in `tox -e quick`: several times what any of them takes here, for the sake of slow machines."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that processes which share the files end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Warn of a test that takes long and would be part of `tox -e quick`."""
    before = sum(os.times()[:4])
    yield
    took = sum(os.times()[:4]) - before
    if took > MOST_CPU_SECONDS and not any(item.get_closest_marker(tier) for tier in LONG):
        item.warn(pytest.PytestWarning(f"{item.nodeid} took {took:.0f} CPU seconds and is not marked slow"))


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, Any, Any]:
    with _set_aside():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    """Collecting garbage, which every measured stage does, passes over what came with earlier tests: their imports."""
    with _set_aside():
        return (yield)


def _set_aside() -> AbstractContextManager[None]:
    from bench.measure.memory import set_aside

    return set_aside()


@pytest.fixture(scope="session")
def tiny_mha(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny-mha")


@pytest.fixture(scope="session")
def tiny_gqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny-gqa", kv_heads=2, tied=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, and none reaches the network."""
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("LEANBOARD_OFFLINE", "1")
    monkeypatch.delenv("LEANBOARD_DATA", raising=False)
    monkeypatch.setenv("LEANBOARD_TASKS", "")  # what a verb adds to it is undone


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None) -> "Iterator[Hub]":
    """A model hub of this test's own, which is the one that everything uses."""
    from tests.hub import Hub

    with Hub(tmp_path / "hub").serving() as hub:
        hub.install(monkeypatch)
        yield hub
