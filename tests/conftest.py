from pathlib import Path

import pytest


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
