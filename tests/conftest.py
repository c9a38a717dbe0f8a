import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub import Hub

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Of each process, before it imports torch: tiny matrices are slower on several threads, on a busy machine much."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that processes which share the files end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _imports_are_set_aside() -> Iterator[None]:
    """Collecting garbage, which every measured stage does, passes over the modules that all tests import."""
    from bench.measure.memory import set_aside

    with set_aside():
        yield


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None) -> "Iterator[Hub]":
    """A model hub of this test's own, which is the one that everything uses."""
    from tests.hub import Hub

    with Hub(tmp_path / "hub").serving() as hub:
        hub.install(monkeypatch)
        yield hub
