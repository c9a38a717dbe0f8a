import getpass
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bench.record import provenance as module
from bench.record.provenance import machine_fingerprint, provenance, without_user


def test_what_is_recorded() -> None:
    made = provenance(1.25, ["/opt/bin/leanboard", "run", "suite.yaml"], "H100")
    assert made.seconds == 1.25
    assert made.command == ["leanboard", "run", "suite.yaml"]
    assert datetime.fromisoformat(made.created).utcoffset().total_seconds() == 0
    assert made.packages["python"] == platform.python_version()
    assert re.match(r"\d+\.\d+", made.packages["numpy"])
    assert made.machine["accelerator"] == "H100"
    assert made.machine["cpu"]
    machine: dict[str, Any] = dict(made.machine)
    assert machine["logical_cores"] >= machine["physical_cores"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert machine["load"] >= 0
    assert provenance(1.0, []).command == [""]


def test_no_host_or_user_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    command = ["leanboard", "--model-path", "a=/home/ada/m", "/scratch/ada/x", "/home/adam/y", "a/canada/b"]
    made = provenance(1.0, command)
    assert made.command == ["leanboard", "--model-path", "a=~/m", "/scratch/USER/x", "/home/adam/y", "a/canada/b"]
    if len(platform.node()) > 3:
        assert platform.node() not in json.dumps(made.model_dump())
    assert without_user("nothing here") == "nothing here"


def test_the_fingerprint_is_stable_and_knows_the_accelerator() -> None:
    code = "from bench.record.provenance import machine_fingerprint; print(machine_fingerprint(None))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == machine_fingerprint(None)
    assert re.fullmatch("[0-9a-f]{12}", machine_fingerprint(None))
    assert len({machine_fingerprint(name) for name in (None, "H100", "H200")}) == 3


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository that stands in for the package's own."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "bench" / "code.py").write_text("1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "bench"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(module, "ROOT", tmp_path.resolve())
    module._checkout.cache_clear()
    yield tmp_path
    module._checkout.cache_clear()


def test_commit_and_dirty_flag(checkout: Path) -> None:
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (checkout / "results" / "leaderboard.csv").write_text("results do not make the code dirty\n")
    made = provenance(1.0, [])
    assert (made.commit, made.dirty) == (head.stdout.strip(), False)
    module._checkout.cache_clear()
    (checkout / "bench" / "code.py").write_text("2\n")
    assert provenance(1.0, []).dirty is True


def test_a_package_that_lies_in_another_repository_has_no_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOT", checkout.resolve() / "bench")
    made = provenance(1.0, [])
    assert (made.commit, made.dirty) == (None, None)


def test_importing_records_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, bench.record.store, bench.record.provenance as p; p.provenance(1.0, []); "
        "assert not {'torch', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
