"""Models of the model hub: ids with a revision, the snapshot in the hub's own cache, and downloads into it."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalogue.bin_files import GB, SMALL, check_space
from bench.checkpoint_files import (
    BIN,
    TOKENIZER_FILES,
    bins_alone,
    check_bin,
    check_config,
    check_safetensors,
    check_weights,
    nothing_to_read,
    weight_names,
)
from bench.data.files import nearest, read_json
from bench.data.hub import why_no_hub
from bench.errors import DataError, LeanboardError, UsageError, first_line
from bench.paths import cache_dir

Say = Callable[[str], None]
NAME = r"[a-zA-Z0-9](?:[\w.-]{0,94}\w)?"
"""As the hub's library takes it: 96 characters at most, and no mark at either end."""
HUB_ID = re.compile(rf"({NAME}/{NAME})(?:@([\w.][\w./+-]*))?", re.ASCII)
WHAT_TO_DO = (
    "give a folder with config.json, weights (*.safetensors or pytorch_model*.bin) and the tokenizer's files: "
    "--model-path {id}=DIR"
)
SECONDS = 10.0
"""Between two lines of progress."""


@dataclass(frozen=True)
class HubId:
    """A repository and a commit, tag or branch of it."""

    repo: str
    revision: str = "main"

    @classmethod
    def of(cls, text: str) -> HubId | None:
        """`owner/name` or `owner/name@revision`; None where `text` is neither."""
        match = HUB_ID.fullmatch(text)
        if match is None or ".." in text or "--" in match[1] or match[1].endswith(".git"):
            return None
        return cls(match[1], match[2] or "main")

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


def snapshot(source: HubId) -> Path | None:
    """The folder of a whole checkpoint in the hub's cache on this machine; its name is the commit."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        _check_whole(folder)
    except DataError:
        return None
    return folder


def from_hub(name: str, source: HubId, offline: bool, on_progress: Say, trust_remote_code: bool = False) -> Path:
    """The snapshot on this machine, downloaded where it is not there or not whole; with code of its own where trusted.

    Raises:
        UsageError: it is not to be had, in one sentence that begins with `name`.
    """
    folder = snapshot(source)
    if folder is not None and (offline or any((folder / file).exists() for file in TOKENIZER_FILES)):
        return folder
    why = why_no_hub(offline)
    if why is not None and folder is not None:
        return folder
    advice = WHAT_TO_DO.format(id=name)
    if why is not None:
        raise UsageError(f"{name}: no weights on this machine and {why}; {advice}")
    try:
        return _download(name, source, on_progress, trust_remote_code)
    except DataError as error:
        raise UsageError(f"{name}: {error}; {advice}") from error
    except LeanboardError:
        raise
    except Exception as error:  # of the hub's client, or of its transport, which changes between its versions
        raise UsageError(f"{name}: {_reason(source, error)}; or {advice}") from error


def config_from_hub(source: HubId, offline: bool) -> Path:
    """The config.json of a repository, without its weights; raises `UsageError`."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    here = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
    if isinstance(here, str):
        return Path(here)
    why = why_no_hub(offline)
    if why is not None:
        raise UsageError(f"{source}: no config.json on this machine and {why}")
    try:
        return Path(hf_hub_download(source.repo, "config.json", revision=source.revision))
    except Exception as error:  # as in `from_hub`
        raise UsageError(f"{source}: {_reason(source, error)}") from error


def files_of(source: HubId, offline: bool) -> list[str]:
    """The names of a repository's files; of a whole snapshot on this machine those. Raises `UsageError`."""
    from huggingface_hub import HfApi

    folder = snapshot(source)
    if folder is not None:
        return [path.name for path in folder.iterdir()]
    why = why_no_hub(offline)
    if why is not None:
        raise UsageError(f"{source}: its files are not on this machine and {why}")
    try:
        names: list[str] = HfApi().list_repo_files(source.repo, revision=source.revision)
    except Exception as error:  # as in `from_hub`
        raise UsageError(f"{source}: {_reason(source, error)}") from error
    return names


def _download(name: str, source: HubId, on_progress: Say, trust_remote_code: bool) -> Path:
    """Small files first, so that a model that cannot be read is refused before its weights are fetched."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
    small = [file for file in sizes if file.endswith((*SMALL, ".py") if trust_remote_code else SMALL)]
    options: dict[str, Any] = {"tqdm_class": _quiet_bars(lambda done: None)}
    folder = Path(snapshot_download(source.repo, revision=source.revision, allow_patterns=small, **options))
    check_config(read_json(folder / "config.json"), folder / "config.json", trust_remote_code)
    names = list(sizes)
    weights = weight_names(folder, names) or weight_names(folder, names, BIN)
    if not weights:
        raise DataError(f"{source.repo} {nothing_to_read(names)}")
    for file in weights:
        if file not in sizes:
            raise DataError(f"{source.repo}: {file}: this shard is in the index and not in the repository")
    damaged = [file for file in weights if _is_damaged(folder / file)]
    left = sum(sizes[file] for file in weights if file in damaged or not (folder / file).is_file())
    _check_space(name, left, sum(sizes[file] for file in weights if file.endswith(BIN)))
    what = f"{name}: {source.repo} at commit {folder.name[:12]}"
    on_progress(f"{what}: {_size(left)} in {len(weights)} files from the model hub")
    bars = _quiet_bars(_in_steps(lambda done: on_progress(f"{what}: {_size(done)} of {_size(left)}")))
    if damaged:
        snapshot_download(source.repo, revision=folder.name, allow_patterns=damaged, force_download=True)
    snapshot_download(source.repo, revision=folder.name, allow_patterns=weights, tqdm_class=bars)
    _check_whole(folder)
    return folder


def _is_damaged(path: Path) -> bool:
    try:
        if path.is_file():
            (check_bin if path.suffix == f".{BIN}" else check_safetensors)(path)
    except DataError:
        return True
    return False


def _check_whole(folder: Path) -> None:
    """Raise `DataError` where weights are missing or truncated."""
    bins = bins_alone(folder)
    for name in bins:
        check_bin(folder / name)
    if not bins:
        check_weights(folder)


def _check_space(name: str, left: int, to_convert: int) -> None:
    """Refuse a download that the hub's cache has no room for, or what is made of it the cache of ours."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    place, own = nearest(cache), nearest(cache_dir())
    if place.stat().st_dev == own.stat().st_dev:
        left += to_convert
    free = shutil.disk_usage(place).free
    if left > free:
        raise UsageError(f"{name}: needs {_size(left)} in {cache}, and {_size(free)} are free")
    if to_convert:
        check_space(name, to_convert)


def _reason(source: HubId, error: Exception) -> str:
    """Why the hub does not give the files, and what to do."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{ENDPOINT}/{source.repo}"
    if isinstance(error, errors.GatedRepoError):
        return f"access to {source.repo} is gated: ask for it at {page}, then set HF_TOKEN to a token of yours"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source.repo} has no commit, tag or branch '{source.revision}'"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {source.repo} on the model hub, or one that needs a token in HF_TOKEN"
    if status == 401:
        return f"the model hub does not accept the token in HF_TOKEN for {source.repo}"
    if status == 403:
        return f"the model hub refuses access to {source.repo}: ask for it at {page}, then set HF_TOKEN"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{source.repo} has no config.json"
    if status is not None:
        return f"{source.repo} cannot be downloaded (the model hub answers {status}); try again later"
    return f"the transfer of {source.repo} broke off ({first_line(error)}); run it again, whole files are kept"


def _size(count: float) -> str:
    return f"{count / GB:.2f} GB"


def _in_steps(say: Callable[[float], None]) -> Callable[[float], None]:
    """`say`, but at most once in `SECONDS`."""
    last = time.monotonic()

    def at_times(done: float) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            say(done)

    return at_times


def _quiet_bars(report: Callable[[float], None]) -> type:
    """Progress bars that draw nothing and report the bytes they have counted."""
    from tqdm.auto import tqdm

    class Bars(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # a group of bars, which tqdm does not know
            super().__init__(*args, **{**options, "file": io.StringIO(), "mininterval": 0.1, "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if self.unit == "B":
                report(self.n)
            return drawn

    return Bars
