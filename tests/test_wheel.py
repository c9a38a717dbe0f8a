"""What is built is whole: a wheel in a bare environment finds all that is built in, and ranks as the checkout does."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from bench.registry import load_registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "methods", "tasks")


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in it, without compiled code."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves files behind, with what is installed here."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(copy))
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def leanboard(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel, and all else from the environment of the tests."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home)
    pip("--python", str(home / "bin" / "python"), "install", "--no-deps", str(wheel))
    [site] = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return home / "bin" / "leanboard"


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--no-input", "--no-cache-dir", *arguments],
        env=os.environ | {"PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(command: Path, *arguments: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([command, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_its_packages(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {f"{package}/{name}" for package in PACKAGES for name in files_in(ROOT / package)}


def test_what_was_installed_is_not_the_checkout(leanboard: Path, tmp_path: Path) -> None:
    code = (
        "import bench, bench.registry as r; print(bench.__file__, len(r.load_registry().methods), len(r.load_tasks()))"
    )
    place, *found = run(leanboard.with_name("python"), "-c", code, cwd=tmp_path).split()
    assert Path(place).is_relative_to(leanboard.parents[1])
    rows = json.loads(run(leanboard, "methods", "--json", cwd=tmp_path))
    assert found[0] == str(len(rows)) == str(len(load_registry().methods))
    assert found[1] == str(len(list((ROOT / "tasks").glob("*.yaml"))))


def test_the_full_board_is_ranked_as_in_the_checkout(leanboard: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "full" / "runs", tmp_path / "results" / "runs")
    run(leanboard, "report", cwd=tmp_path)
    ours, theirs = files_in(ROOT / "results" / "full"), files_in(tmp_path / "results")
    assert ours.keys() == theirs.keys()
    text = {name for name in ours if not name.endswith((".png", ".svg"))}
    assert "leaderboard.md" in text
    assert [name for name in sorted(text) if ours[name].read_bytes() != theirs[name].read_bytes()] == []
