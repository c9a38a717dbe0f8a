"""Files and folders are whole or not there, whatever ends their writer."""

from pathlib import Path

import pytest

from bench.data.files import locked, replacing, write_whole
from bench.errors import LeanboardError


class Killed(BaseException):
    pass


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "a" / "model"
    for content in ("old", "new"):
        with replacing(target) as folder:
            folder.mkdir()
            (folder / content).write_text(content)
    assert names(tmp_path) == {"a", "model", "new"}


def test_what_goes_wrong_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_whole(target, b"old")

    def write_half() -> None:
        with replacing(target) as new:
            new.write_bytes(b"ne")
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as first, replacing(target) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert target.read_bytes() == b"first"


def test_the_lock_removes_what_a_killed_writer_left_of_this_file_alone(tmp_path: Path) -> None:
    for name in (".model[1].x1.part", ".model[1].x2.part", ".other.x3.part", ".model1.x4.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    with locked(tmp_path / "model[1]"):
        left = {path.name for path in tmp_path.glob("*.part")}
    assert left == {".other.x3.part", ".model1.x4.part"}


def test_what_the_file_system_refuses_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanboardError, match=r"file/inside: cannot be written: "):
        write_whole(tmp_path / "file" / "inside", b"")
