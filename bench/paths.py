"""Leanboard's folders on this machine."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that `bench`, `methods` and `tasks` lie in: the checkout, or where a wheel was installed.

What is built in is found from here and not by import: a user's `methods.py` or `tasks.py` cannot hide it.
"""
METHODS, TASKS, SUITES = ROOT / "methods", ROOT / "tasks", ROOT / "tasks" / "suites"


def cache_dir() -> Path:
    """Folder for downloads, converted models and checkpoints: `LEANBOARD_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("LEANBOARD_CACHE") or platformdirs.user_cache_dir("leanboard")).expanduser()


def artifact_path(key: str) -> Path:
    """Where the checkpoint of a key lies on this machine."""
    return cache_dir() / "artifacts" / key


def data_roots() -> list[Path]:
    """Local data packs in the order they are searched: `LEANBOARD_DATA` where set, then the cache."""
    given = os.environ.get("LEANBOARD_DATA")
    return ([Path(given).expanduser()] if given else []) + [cache_dir() / "data"]


def offline() -> bool:
    """True where `LEANBOARD_OFFLINE` (or the hub's own `HF_HUB_OFFLINE`) forbids any network use."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("LEANBOARD_OFFLINE", "HF_HUB_OFFLINE"))
