"""The tests' own hub answers as the real one, as far as its client can tell."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub import Hub

REPO = "some/model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "inner" / "more.json").write_text("[]")
    return folder


def test_a_snapshot_is_what_was_served(hub: Hub, folder: Path) -> None:
    first = hub.add(REPO, folder, "v1")
    info = HfApi().model_info(REPO, revision="v1", files_metadata=True)
    assert (info.sha, info.gated) == (first, False)
    sizes = {"config.json": 2, "inner/more.json": 2, "model.safetensors": 10240}
    assert {file.rfilename: file.size for file in info.siblings} == sizes
    got = Path(snapshot_download(REPO, revision="v1"))
    assert got.name == first
    for path in folder.rglob("*.*"):
        assert (got / path.relative_to(folder)).read_bytes() == path.read_bytes()
    asked = len(hub.asked)
    assert Path(snapshot_download(REPO, revision="v1", local_files_only=True)) == got
    assert len(hub.asked) == asked


def test_a_new_commit_replaces_main_and_not_the_tag(hub: Hub, folder: Path, tmp_path: Path) -> None:
    first = hub.add(REPO, folder, "v1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"a": 1}')
    second = hub.add(REPO, tmp_path / "other")
    assert [HfApi().model_info(REPO, revision=name).sha for name in ("main", "v1", first)] == [second, first, first]


def test_refusals_are_those_that_the_client_knows(hub: Hub, folder: Path) -> None:
    hub.add(REPO, folder)
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("some/other")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info(REPO, revision="v9")
    hub.denied[REPO] = "gated"
    assert HfApi().model_info(REPO).gated == "manual"
    with pytest.raises(GatedRepoError):
        snapshot_download(REPO)
    hub.token = "hf_right"
    assert Path(snapshot_download(REPO, token="hf_right")).is_dir()


def test_a_broken_transfer_goes_on_where_it_stopped(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add(REPO, folder)
    hub.breaks["model.safetensors"] = 6000
    got = Path(snapshot_download(REPO))
    assert (got / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert any(" from " in line for line in hub.asked)
