"""What `doctor` says of GPUs, disks, the model hub and what it asks for."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import doctor
from bench.catalogue import CATALOGUE
from bench.paths import ROOT
from bench.record import provenance
from tests.hub import Hub

GATED = {entry.id for entry in CATALOGUE.values() if entry.gate != "none"}


def found() -> dict[str, tuple[bool, str]]:
    return {finding.what: (finding.ok, finding.found) for finding in doctor.examine()}


def test_gpus_and_whether_torch_can_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_output", lambda *command: None)
    assert found()["gpu"] == (True, "no NVIDIA GPU: runs use the CPU")
    answer = "NVIDIA GeForce RTX 4090, 24564, 24000\nNVIDIA H200, 143771, 100\n"
    monkeypatch.setattr(provenance, "_output", lambda *command: answer)
    for build, ok in (("2.13.0+cpu", False), ("2.13.0+cu130", True), ("2.13.0", True)):
        monkeypatch.setattr(doctor, "version", lambda name, build=build: build)
        findings = found()
        assert findings["gpu 0"] == (True, "NVIDIA GeForce RTX 4090: 23.4 of 24.0 GiB free")
        assert findings["gpu 1"] == (True, "NVIDIA H200: 0.1 of 140.4 GiB free")
        assert findings["cuda"] == (ok, f"torch {build}" + " is built without CUDA" * (not ok))


def test_offline_the_hub_is_not_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_OFFLINE", "1")
    findings = found()
    assert findings["model hub"][1] == (f"{hub.endpoint}: offline: the model hub may not be used; no token (HF_TOKEN)")
    assert {name.removeprefix("access to ") for name in findings if name.startswith("access")} == GATED
    assert findings["access to llama3.1-8b"][1] == "not asked (gate: on request)"
    assert hub.asked == []


def test_which_gated_models_a_token_may_read(
    hub: Hub, tiny_mha: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for repo in ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-2-7b-hf"):
        hub.add(repo, tiny_mha)
        hub.denied[repo] = "gated"
    del hub.denied["meta-llama/Llama-2-7b-hf"]
    assert found()["access to llama3.1-8b"] == (True, "none: the model hub answers 403 (gate: on request)")
    hub.token = "hf_mine"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    findings = found()
    assert findings["access to llama3.1-8b"][1] == "granted (gate: on request)"
    assert findings["access to llama2-7b"][1] == "granted (gate: on request)"
    assert findings["access to llama3.2-1b"][1] == "none: the model hub answers 404 (gate: on request)"
    assert findings["model hub"] == (True, f"{hub.endpoint}: answers; a token is set")
    assert "hf_mine" not in str(findings)


@pytest.mark.slow
def test_it_needs_no_torch() -> None:
    code = "import sys, bench.doctor; bench.doctor.examine(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
