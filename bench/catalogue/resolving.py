"""The search for the checkpoint of a model that somebody named: an id of ours, a folder, or an id of the model hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue.bin_files import as_safetensors
from bench.catalogue.entries import CATALOGUE, CatalogueEntry
from bench.catalogue.hub import HubId, config_from_hub, from_hub, snapshot
from bench.catalogue.wheels import folder_of, from_wheels
from bench.checkpoint_files import check_checkpoint, fingerprint_of, tokenizer_fingerprint
from bench.data.wheels import WheelFile
from bench.errors import UsageError, unknown
from bench.foreign import plain_copy


@dataclass(frozen=True)
class ModelRef:
    """A checkpoint on this machine: `path` a folder that transformers loads.

    `id` is the catalogue's or the hub's as it was typed; for other folders the folder's name and the start of the
    fingerprint. `fingerprint` hashes the weights and the config, `tokenizer_fingerprint` the tokenizer ("none" without
    one), `remote_code` the model's own code, where that was run. `revision` is the commit of a repository of the hub.
    """

    id: str
    path: Path
    fingerprint: str
    tokenizer_fingerprint: str
    remote_code: str | None = None
    revision: str | None = None


def _quiet(message: str) -> None:
    pass


def resolve(
    id_or_path: str,
    *,
    paths: Mapping[str, Path] | None = None,
    offline: bool,
    trust_remote_code: bool = False,
    on_progress: Callable[[str], None] = _quiet,
) -> ModelRef:
    """Find the checkpoint of a catalogue id, a local folder or a hub id; fetch it once if it is not here.

    Args:
        id_or_path: of `owner/name` where there is such a folder, the folder is meant; `owner/name@revision` names a
            commit, tag or branch.
        paths: id -> folder or hub id, from `--model-path`; that is used in place of any other source.

    Raises:
        DataError: the checkpoint, or a file that it is made from, is damaged or not what it should be.
        UsageError: not a known id or folder, not of a known family, or its weights are not available.
    """
    name, folder, revision = _place(id_or_path, paths or {}, offline, on_progress, trust_remote_code)
    remote_code = None
    if trust_remote_code:
        folder, remote_code = plain_copy(folder, on_progress)
    folder = as_safetensors(folder, on_progress)
    config, weights = check_checkpoint(folder)
    on_progress(f"{name or id_or_path}: fingerprint of {folder}")
    fingerprint = fingerprint_of(config, weights)
    name = name or f"{Path(id_or_path).expanduser().resolve().name}-{fingerprint[:6]}"
    return ModelRef(name, folder, fingerprint, tokenizer_fingerprint(folder), remote_code, revision)


def named(text: str, paths: Mapping[str, Path]) -> CatalogueEntry | Path | HubId:
    """What `text` names: an entry of the catalogue, a folder or an id of the hub; what `paths` gives for it goes first.

    Raises:
        UsageError: none of these.
    """
    given = paths.get(text)
    if given is None and text in CATALOGUE:
        return CATALOGUE[text]
    folder = (Path(text) if given is None else given).expanduser()
    if folder.is_dir():
        return folder
    hub_id = HubId.of(text if given is None else str(given))
    if hub_id is not None:
        return hub_id
    if given is None and not any(mark in text for mark in "/\\."):
        raise unknown("model", text, CATALOGUE)
    raise UsageError(f"model {text}: the folder {folder} does not exist")


def config_of(place: Path | HubId, offline: bool) -> Path:
    """The config.json of a folder or a hub id, without its weights; of the hub it is fetched if it is not here.

    Raises:
        UsageError: not to be had from the hub.
    """
    return place / "config.json" if isinstance(place, Path) else config_from_hub(place, offline)


def is_here(entry: CatalogueEntry) -> bool:
    """True where the weights are on this machine, so that `resolve` does not use the network."""
    if isinstance(entry.source, WheelFile):
        return folder_of(entry.id).is_dir()
    return snapshot(HubId(entry.source.repo)) is not None


def _place(
    text: str, paths: Mapping[str, Path], offline: bool, on_progress: Callable[[str], None], trust_remote_code: bool
) -> tuple[str | None, Path, str | None]:
    """The name (None for a folder's, which ends in the fingerprint), the folder and the commit of what `text` names."""
    place = named(text, paths)
    if isinstance(place, Path):
        return (text if text in paths else None), place, None
    if isinstance(place, CatalogueEntry):
        if isinstance(place.source, WheelFile):
            return text, from_wheels(text, place.source, offline, on_progress), None
        place = HubId(place.source.repo)
    folder = from_hub(text, place, offline, on_progress, trust_remote_code)
    return text, folder, folder.name
