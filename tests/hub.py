"""A tiny model hub on the loopback address, for tests: what `huggingface_hub` downloads from it, it downloads really.

    def test_mine(hub: Hub, tmp_path: Path) -> None:        # the fixture of tests/conftest.py; the network is "on"
        commit = hub.add("owner/name", folder, "v1")         # main, and the tag v1; later commits replace main
        resolve("owner/name@v1", offline=False)

`hub.denied["owner/name"] = 403` (or 401, 404, 500; "gated" is the hub's own answer without access), `hub.token` is
the token that opens gated repositories, `hub.breaks["model.safetensors"] = 100` ends every answer with that file
after so many bytes, `hub.asked` lists the requests. A repository of data is named "datasets/owner/name".
Other processes find it by `hub.environment`; in this one `hub.install(monkeypatch)` sets what `huggingface_hub` read
from the environment when it was imported. Without pytest: `with Hub(cache).serving() as hub: …`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import pytest

NAME = r"(?P<repo>(?:datasets/)?[\w.-]+/[\w.-]+)"
INFO = re.compile(rf"^/api/(?:models/)?{NAME}(?:/revision/(?P<revision>[^/]+))?$")
TREE = re.compile(rf"^/api/(?:models/)?{NAME}/tree/(?P<revision>[^/]+)")
ACCESS = re.compile(rf"^/api/(?:models/)?{NAME}/auth-check$")
FILE = re.compile(rf"^/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
CODES: dict[int | str, tuple[int, str]] = {
    "gated": (403, "GatedRepo"),
    401: (401, "RepoNotFound"),
    403: (403, ""),
    404: (404, "RepoNotFound"),
    500: (500, ""),
}


@dataclass
class Hub:
    """Folders served as repositories; `cache` is the client's, where downloads go to."""

    cache: Path
    repos: dict[str, dict[str, str]] = field(default_factory=dict)
    """repository -> revision -> commit"""
    folders: dict[str, Path] = field(default_factory=dict)
    """commit -> folder"""
    denied: dict[str, int | str] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    token: str | None = None
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    def add(self, repo: str, folder: Path, *revisions: str) -> str:
        """Serve `folder` as the newest commit of `repo`, under `revisions` too; the commit."""
        names = [f"{path.relative_to(folder)} {_sha256(path)}" for path in _files(folder)]
        commit = hashlib.sha1("\n".join([repo, *names]).encode()).hexdigest()
        self.folders[commit] = folder
        self.repos.setdefault(repo, {}).update(dict.fromkeys(["main", commit, *revisions], commit))
        return commit

    @property
    def environment(self) -> dict[str, str]:
        """For processes of its clients."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
            "HF_TOKEN_PATH": str(self.cache / "token"),
            "LEANBOARD_OFFLINE": "0",
        }

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process, and those that it starts, use this hub and no other."""
        from bench.data.hub import hub_answers

        for name, value in self.environment.items():
            patch.setenv(name, value)
        constants: dict[str, object] = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_OFFLINE": False,
            "DOWNLOAD_CHUNK_SIZE": 1000,  # of which it keeps whole ones when a transfer breaks
            "HF_TOKEN_PATH": str(self.cache / "token"),
        }
        for name, constant in constants.items():
            patch.setattr(f"huggingface_hub.constants.{name}", constant)
        hub_answers.cache_clear()

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Answer requests until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if path == "/":
            return self._json({})
        for pattern, answer in ((ACCESS, self._access), (TREE, self._tree), (INFO, self._info), (FILE, self._file)):
            if match := pattern.match(path):
                return self._answer(match, answer)
        return self._refuse(404, "RepoNotFound")

    def _answer(self, match: re.Match[str], answer: Any) -> None:
        repo = match["repo"]
        revisions = self.hub.repos.get(repo)
        denied = 404 if revisions is None else self.hub.denied.get(repo)
        about = answer in (self._info, self._tree)  # the hub tells anybody about a gated repository
        if denied == "gated" and (about or self._has_token()):
            denied = None
        if denied is not None:
            return self._refuse(*CODES[denied])
        revision = match.groupdict().get("revision") or "main"
        if revision not in revisions:
            return self._refuse(404, "RevisionNotFound")
        return answer(match, revisions[revision])

    def _has_token(self) -> bool:
        return self.hub.token is not None and self.headers["Authorization"] == f"Bearer {self.hub.token}"

    def _access(self, match: re.Match[str], commit: str) -> None:
        self._json({})

    def _info(self, match: re.Match[str], commit: str) -> None:
        folder = self.hub.folders[commit]
        files = [{"rfilename": entry["path"], **entry} for entry in map(_entry, _files(folder), _names(folder))]
        gated = "manual" if self.hub.denied.get(match["repo"]) == "gated" else False
        about = {"id": match["repo"], "sha": commit, "gated": gated, "private": False}
        self._json(about | {"siblings": files, "tags": []})

    def _tree(self, match: re.Match[str], commit: str) -> None:
        folder = self.hub.folders[commit]
        self._json([{"type": "file", **entry} for entry in map(_entry, _files(folder), _names(folder))])

    def _file(self, match: re.Match[str], commit: str) -> None:
        path = self.hub.folders[commit] / match["file"]
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", commit)
        content = path.read_bytes()
        wanted = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.hub.asked[-1] += f" from {start}" if wanted else ""
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{_sha256(path)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        most = self.hub.breaks.get(path.name)
        if most is None or len(content) - start <= most:
            self.wfile.write(content[start:])
            return None
        self.wfile.write(content[start : start + most])
        self.close_connection = True
        return None

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, commit: str | None = None) -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", commit), ("Content-Length", "0")):
            if value:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(path: Path, name: str) -> dict[str, Any]:
    size, digest = path.stat().st_size, _sha256(path)
    lfs = {"oid": digest, "sha256": digest, "size": size, "pointerSize": 130}
    return {"path": name, "size": size, "oid": digest[:40], "blobId": digest[:40], "lfs": lfs}


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in _files(folder)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
