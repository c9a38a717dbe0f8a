import os
from pathlib import Path

import pytest

from bench.data import wheels
from bench.data.wheels import extract, fetch_wheel, read_member
from bench.errors import DataError, UsageError
from bench.paths import cache_dir
from tests.data.helpers import make_wheel

LIMIT = 10_000


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder: pip looks nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(index: Path) -> str:
    metadata = b"Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n"
    return make_wheel(
        index / "toy_data-1.0-py3-none-any.whl",
        {
            "toy_data/a.txt": b"hello",
            "toy_data-1.0.dist-info/METADATA": metadata,
            "toy_data-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "toy_data-1.0.dist-info/RECORD": b"",
        },
    )


def test_a_wheel_is_downloaded_once_and_then_found_offline(index: Path) -> None:
    sha256 = publish(index)
    wheel = fetch_wheel("toy-data", "1.0", sha256, LIMIT, offline=False)
    assert wheel.parent == cache_dir() / "wheels"
    assert read_member(wheel, "toy_data/a.txt") == b"hello"
    (index / wheel.name).unlink()
    assert fetch_wheel("toy-data", "1.0", sha256, LIMIT, offline=True) == wheel
    assert [path.name for path in wheel.parent.iterdir() if not path.name.endswith(".lock")] == [wheel.name]


def test_a_wheel_of_another_sha256_is_refused_and_removed(index: Path) -> None:
    found = publish(index)
    with pytest.raises(DataError) as caught:
        fetch_wheel("toy-data", "1.0", "0" * 64, LIMIT, offline=False)
    assert all(part in str(caught.value) for part in ("toy_data-1.0-py3-none-any.whl", found, "0" * 64))
    assert not list((cache_dir() / "wheels").glob("*.whl"))


def test_a_cached_wheel_that_was_damaged_is_removed(index: Path) -> None:
    sha256 = publish(index)
    wheel = fetch_wheel("toy-data", "1.0", sha256, LIMIT, offline=False)
    wheel.write_bytes(b"damaged")
    with pytest.raises(DataError, match="sha256"):
        fetch_wheel("toy-data", "1.0", sha256, LIMIT, offline=True)
    assert not wheel.exists()
    assert fetch_wheel("toy-data", "1.0", sha256, LIMIT, offline=False) == wheel


def test_a_wheel_over_the_size_limit_is_refused(index: Path) -> None:
    with pytest.raises(DataError, match="more than the expected 10"):
        fetch_wheel("toy-data", "1.0", publish(index), 10, offline=False)


def test_offline_no_download_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was called"))
    with pytest.raises(UsageError, match=r"toy-data==1.0.*offline"):
        fetch_wheel("toy-data", "1.0", "0" * 64, LIMIT, offline=True)


def test_a_package_that_cannot_be_had_is_one_sentence(index: Path) -> None:
    with pytest.raises(UsageError, match=r"toy-data==1.0 cannot be downloaded") as caught:
        fetch_wheel("toy-data", "1.0", "0" * 64, LIMIT, offline=False)
    assert "\n" not in str(caught.value)


def test_an_index_that_does_not_answer_is_called_that(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UsageError, match=r"toy-data==1.0 cannot be downloaded .* \(it does not answer\)"):
        fetch_wheel("toy-data", "1.0", "0" * 64, LIMIT, offline=False)


def test_extract_writes_the_member_alone(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a/one": b"1", "a/two": b"2"})
    target = extract(wheel, "a/two", tmp_path / "out" / "two")
    assert target.read_bytes() == b"2"
    assert not (tmp_path / "out" / "one").exists()


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "a\\..\\evil"])
def test_a_member_that_leaves_the_archive_is_refused(tmp_path: Path, member: str) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {member: b"x"})
    with pytest.raises(DataError, match="leaves the archive"):
        extract(wheel, member, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_folders_and_giants_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"link": b"/etc/passwd", "folder/": b"", "big": b"0123456789"}, links=("link",))
    for member in ("link", "folder/"):
        with pytest.raises(DataError, match="not an ordinary file"):
            extract(wheel, member, tmp_path / "out")
    monkeypatch.setattr(wheels, "MEMBER_LIMIT", 9)
    with pytest.raises(DataError, match="10 bytes, more than 9"):
        extract(wheel, "big", tmp_path / "out")


def test_a_missing_member_a_wrong_hash_and_a_broken_zip_are_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a": b"content of a"})
    with pytest.raises(DataError, match="has no member 'b'"):
        extract(wheel, "b", tmp_path / "out")
    with pytest.raises(DataError, match="sha256"):
        extract(wheel, "a", tmp_path / "out", "0" * 64)
    wheel.write_bytes(wheel.read_bytes().replace(b"content of a", b"content of b"))
    with pytest.raises(DataError, match="cannot be read"):
        extract(wheel, "a", tmp_path / "out")
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        read_member(wheel, "a")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a": b"x"})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        extract(wheel, "a", tmp_path / "file" / "out")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, sink: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a": b"x"})
    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    with pytest.raises(UsageError, match=r"out: cannot be written \(No space left on device\)"):
        extract(wheel, "a", tmp_path / "out" / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".out.lock"]
