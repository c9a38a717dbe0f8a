"""A user's files become texts of the pack, or one sentence that says where they are wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bench.cli.common import app
from bench.data.own_files import add_files
from bench.data.pack import Pack
from bench.data.texts import documents
from bench.errors import DataError, UsageError
from bench.suite import TextSource
from tests.packs import make_pack

TEXTS = ["The first, with a comma\nand a line break.", "Zweitens: größer."]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


def written(file: Path) -> Path:
    """`TEXTS` as a file of the kind that its name says, in a column 'story'."""
    rows = [{"n": i, "story": text} for i, text in enumerate(TEXTS)]
    if file.suffix == ".jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    elif file.suffix == ".csv":
        file.write_text("n,story\r\n" + "\r\n".join(f'{row["n"]},"{row["story"]}"' for row in rows), newline="")
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_the_named_column_of_each_kind_of_file_becomes_the_text(tmp_path: Path, name: str) -> None:
    add_files("mine/train", [written(tmp_path / name), written(tmp_path / f"b{name}")], "story")
    assert documents(TextSource(data="mine/train")) == TEXTS * 2
    assert Pack.default().verify() == []


def test_a_text_file_is_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\nOne line\nand its second.\r\n \t\r\n\nTwo.\n")
    add_files("mine/train", [tmp_path / "a.txt"])
    assert documents(TextSource(data="mine/train")) == ["One line\nand its second.", "Two."]


def test_instructions_stay_instructions(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "Say it.", "output": "It.", "id": 3}')
    add_files("mine/train", [tmp_path / "a.jsonl"])
    assert Pack.default().rows("mine/train", ["instruction", "input", "output"]) == [
        {"instruction": "Say it.", "input": "", "output": "It."}
    ]
    written(tmp_path / "b.jsonl").write_text('{"text": "plain"}')
    with pytest.raises(DataError, match="some files hold instructions and others plain text"):
        add_files("mine/other", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"', ":2: not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}', ":2: has no column 'text' (it has txt); name one with --column"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', ":2: column 'text' does not hold a text"),
        ("a.jsonl", b'{"text": "\\ud800"}', ":1: column 'text' holds half a character"),
        ("a.jsonl", b"[1, 2]", ":1: is not an object with columns"),
        ("a.jsonl", b'{"text": " "}', ": is empty"),
        ("a.jsonl", b"[" * 100_000, ":1: not valid JSON (nested too deeply)"),
        ("a.json", b'[{"text": "a"},\n{"text"}]', ":2: not valid JSON"),
        ("a.json", b'{"text": "a"}', ": is not a list of objects"),
        ("a.json", b'[{"text": "a"}, {}]', ": row 2: has no column 'text' (it has none)"),
        ("a.csv", b"text\nb\nc,d\n", ":3: has more fields than the header"),
        ("a.csv", b'text\n"b"c\n', ":2: not valid CSV"),
        ("a.csv", b"text\n", ": is empty"),
        ("a.txt", b"one\n\ntw\xff", ":3: not UTF-8 text"),
        ("a.txt", b"\n", ": is empty"),
        ("a.parquet", b"PAR1", ": not a readable parquet file"),
        ("a.pdf", b"", ": must be one of .jsonl, .json, .txt, .csv, .parquet"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, UsageError)) as caught:
        add_files("mine/train", [tmp_path / name])
    assert str(caught.value).startswith(f"{tmp_path / name}{sentence}")
    assert "\n" not in str(caught.value)
    assert not Pack.default().has("mine/train")


def test_names_and_options_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(No such file"):
        add_files("mine/train", [file])
    file.write_text("one")
    with pytest.raises(UsageError, match="a text file has no columns"):
        add_files("mine/train", [file], "text")
    for name in ("mine", "../mine/train", "Mine/train"):
        with pytest.raises(UsageError, match="does not name a text"):
            add_files(name, [file])
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / "pack", {"theirs/train": [{"text": "t"}]})))
    for name in ("c4/train", "theirs/train"):
        with pytest.raises(UsageError, match="there is a text of that name"):
            add_files(name, [file])


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["data", "add", "mine/train", str(written(tmp_path / "a.csv")), "--column", "story"])
    assert done.stdout.startswith("mine/train: 2 rows (text) in ")
    listed = {row["name"]: row for row in json.loads(run(app, ["data", "list", "--json"]).stdout)}
    assert listed["mine/train"] == {"name": "mine/train", "here": "yes", "rows": 2, "columns": "text", "licence": ""}
    assert listed["c4/train"]["here"] == "not fetched"
