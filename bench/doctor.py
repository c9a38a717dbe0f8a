"""Check what a run needs of this machine, without starting one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from bench.catalogue import CATALOGUE, CatalogueEntry, HubModel, is_here
from bench.data.files import nearest
from bench.data.hub import why_no_hub
from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.paths import cache_dir, data_roots, offline
from bench.record.provenance import gpu_states
from bench.registry import load_registry

SHOWN = ("torch", "transformers", "lm-eval", "peft")
GIB = 1024**3
NEEDED_MEMORY, NEEDED_DISK = 6 * GIB, 10 * GIB


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    ok: bool
    found: str

    def row(self) -> dict[str, str | bool]:
        return {"check": self.what, "ok": self.ok, "found": self.found}


def examine() -> list[Finding]:
    """Check packages, GPUs, memory, disk, data packs, the model hub, models and methods of this machine."""
    return [*_packages(), *_gpus(), _memory(), *_disks(), *_data(), *_hub(), *_models(), *_methods()]


def _packages() -> list[Finding]:
    """The packages that results depend on most, and all that are missing or have a wrong version."""
    findings = []
    for requirement in map(Requirement, requires("leanboard") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            findings.append(Finding(requirement.name, False, f"not installed; needs {requirement.specifier}"))
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        if not fits or requirement.name in SHOWN:
            text = found if fits else f"{found}; needs {requirement.specifier}"
            findings.append(Finding(requirement.name, fits, text))
    return findings


def _gpus() -> Iterator[Finding]:
    """Each GPU with its free memory, and whether torch can use it; torch itself is not loaded."""
    states = gpu_states()
    for number, (name, total, free) in enumerate(states):
        yield Finding(f"gpu {number}", True, f"{name}: {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    if not states:
        yield Finding("gpu", True, "no NVIDIA GPU: runs use the CPU")
        return
    try:
        build = version("torch")
    except PackageNotFoundError:
        return
    has_cuda = not build.endswith("+cpu")
    yield Finding("cuda", has_cuda, f"torch {build}" + ("" if has_cuda else " is built without CUDA"))


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    return Finding("memory", free >= NEEDED_MEMORY, f"{free / GIB:.1f} GiB free, {os.cpu_count()} cores")


def _disks() -> Iterator[Finding]:
    """Room for the cache of ours, and for the hub's where that is on another disk."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {"disk": cache_dir(), "disk of the model hub's cache": Path(HF_HUB_CACHE)}
    seen: set[int] = set()
    for what, wanted in places.items():
        folder = nearest(wanted)
        if folder.stat().st_dev not in seen:
            free = shutil.disk_usage(folder).free
            yield Finding(what, free >= NEEDED_DISK, f"{free / GIB:.1f} GiB free for {wanted}")
        seen.add(folder.stat().st_dev)


def _data() -> list[Finding]:
    findings = []
    for root in data_roots():
        if root.exists():
            problems = [str(problem) for problem in Pack([root]).verify()]
            files = len(Pack([root]).files())
            findings.append(Finding(f"data {root}", not problems, "; ".join(problems) or f"{files} files"))
    return findings or [Finding("data", True, "no pack yet; a run fetches what it needs")]


def _hub() -> list[Finding]:
    """Whether the hub answers, and which of the catalogue's models that ask for something this token may read."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT

    why = why_no_hub(offline())
    token = "a token is set" if get_token() else "no token (HF_TOKEN)"
    gated = [entry for entry in CATALOGUE.values() if entry.gate != "none"]
    if why is not None:
        answers = ["not asked"] * len(gated)
    else:
        with ThreadPoolExecutor(len(gated)) as pool:
            answers = list(pool.map(_access, gated))
    found = [
        Finding(f"access to {entry.id}", True, f"{answer} (gate: {entry.gate})")
        for entry, answer in zip(gated, answers, strict=True)
    ]
    return [Finding("model hub", True, f"{ENDPOINT}: {why or 'answers'}; {token}"), *found]


def _access(entry: CatalogueEntry) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    assert isinstance(entry.source, HubModel)
    try:
        HfApi().auth_check(entry.source.repo)
    except HfHubHTTPError as error:
        return f"none: the model hub answers {error.response.status_code}"
    except Exception as error:  # of the transport, which changes between versions of the client
        return f"not known ({type(error).__name__})"
    return "granted"


def _models() -> list[Finding]:
    return [
        Finding(f"model {entry.id}", True, "here" if is_here(entry) else "not fetched") for entry in CATALOGUE.values()
    ]


def _methods() -> list[Finding]:
    try:
        registry = load_registry()
    except LeanboardError as error:
        return [Finding("methods", False, str(error))]
    broken = [Finding(f"method {name}", False, reason) for name, reason in registry.broken.items()]
    return [Finding("methods", not broken, ", ".join(registry.methods)), *broken]
