import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.pack import Pack
from bench.errors import DataError, UsageError
from tests.packs import make_pack

ROWS = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "pack", {"toy/test": ROWS})


def message(root: Path, ref: str = "toy/test") -> str:
    with pytest.raises(DataError) as caught:
        Pack([root]).path(ref)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_verified_rows_and_columns(root: Path) -> None:
    pack = Pack([root])
    assert pack.has("toy/test")
    assert pack.rows("toy/test", ["n", "text"]) == ROWS
    assert pack.column("toy/test", "text") == ["one", "two"]
    assert pack.sha256("toy/test") == json.loads((root / "manifest.json").read_text())["toy/test.parquet"]["sha256"]


def test_the_first_root_wins(root: Path, tmp_path: Path) -> None:
    other = make_pack(tmp_path / "other", {"toy/test": [{"text": "else"}], "toy/train": [{"text": "more"}]})
    pack = Pack([root, other])
    assert pack.column("toy/test", "text") == ["one", "two"]
    assert pack.column("toy/train", "text") == ["more"]
    assert [file.ref for file in pack.files()] == ["toy/test", "toy/train"]
    assert pack.files()[0].path == root / "toy/test.parquet"


def test_a_missing_file_names_the_ref_the_roots_and_the_command(root: Path) -> None:
    said = message(root, "toy/train")
    assert "toy/train" in said
    assert str(root) in said
    assert "leanboard data fetch" in said


def test_a_truncated_file_is_refused(root: Path) -> None:
    path = root / "toy/test.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert "toy/test.parquet: truncated" in message(root)


def test_a_changed_byte_is_seen_even_after_the_file_was_read(root: Path) -> None:
    path = root / "toy/test.parquet"
    assert Pack([root]).path("toy/test") == path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "sha256" in message(root)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "missing"),
        ("{", "not the manifest"),
        ("[1, 2]", "not the manifest"),
        ('{"toy/test.parquet": {"rows": 2}}', "columns"),
        ('{"../../etc/passwd": {"rows": 2, "columns": [], "sha256": "", "bytes": 1}}', "not the manifest"),
        ("{}", "does not list toy/test.parquet"),
    ],
)
def test_a_missing_or_foreign_manifest_is_refused(root: Path, manifest: str | None, said: str) -> None:
    path = root / "manifest.json"
    path.unlink()
    if manifest is not None:
        path.write_text(manifest)
    found = message(root)
    assert str(path) in found
    assert said in found


def test_a_missing_column_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="has no column 'label'"):
        Pack([root]).rows("toy/test", ["text", "label"])


def test_a_column_must_hold_texts(root: Path) -> None:
    with pytest.raises(DataError, match="column 'n' does not hold a text"):
        Pack([root]).column("toy/test", "n")


def test_a_file_that_is_no_parquet_is_refused(root: Path) -> None:
    (root / "toy/test.parquet").write_bytes(b"not parquet")
    entry = {"rows": 1, "columns": ["text"], "bytes": 11, "sha256": hashlib.sha256(b"not parquet").hexdigest()}
    (root / "manifest.json").write_text(json.dumps({"toy/test.parquet": entry}))
    with pytest.raises(DataError, match="not a readable parquet file"):
        Pack([root]).column("toy/test", "text")


@pytest.mark.parametrize("ref", ["toy", "../toy/test", "toy/../test", "/etc/passwd", "toy/test.parquet"])
def test_a_ref_cannot_leave_the_pack(root: Path, ref: str) -> None:
    with pytest.raises(UsageError, match="does not name a file"):
        Pack([root]).path(ref)


def test_the_fingerprint_is_of_the_rows_not_of_the_bytes(root: Path, tmp_path: Path) -> None:
    other = make_pack(tmp_path / "other", {"toy/test": ROWS, "toy/train": ROWS[::-1]})
    path = other / "toy/test.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, compression="none")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["toy/test.parquet"] |= {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (other / "manifest.json").write_text(json.dumps(manifest))
    ours, theirs = Pack([root]), Pack([other])
    assert ours.sha256("toy/test") != theirs.sha256("toy/test")
    assert ours.fingerprint("toy/test") == theirs.fingerprint("toy/test")
    assert ours.fingerprint("toy/test") != theirs.fingerprint("toy/train")


def test_verify_names_every_problem(root: Path, tmp_path: Path) -> None:
    assert Pack([root, tmp_path / "absent"]).verify() == []
    make_pack(root, {"toy/test": ROWS, "toy/gone": ROWS, "toy/short": ROWS})
    (root / "toy/gone.parquet").unlink()
    (root / "toy/short.parquet").write_bytes(b"x")
    (root / "toy/stray.parquet").write_bytes(b"x")
    problems = {problem.file.name: problem.reason for problem in Pack([root]).verify()}
    assert set(problems) == {"gone.parquet", "short.parquet", "stray.parquet"}
    assert "missing" in problems["gone.parquet"]
    assert "truncated" in problems["short.parquet"]
    assert "not listed" in problems["stray.parquet"]


def test_the_pack_a_user_names_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"LEANBOARD_DATA.*does not exist"):
        Pack.default()
