"""Check what a run needs of this machine, without starting one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import psutil
from packaging.requirements import Requirement

from bench.catalogue import CATALOGUE, is_here
from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.paths import cache_dir, data_roots
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
    """Check packages, memory, disk, data packs, models and methods of this machine."""
    return [*_packages(), _memory(), _disk(), *_data(), *_models(), *_methods()]


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


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    return Finding("memory", free >= NEEDED_MEMORY, f"{free / GIB:.1f} GiB free, {os.cpu_count()} cores")


def _disk() -> Finding:
    folder = next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    return Finding("disk", free >= NEEDED_DISK, f"{free / GIB:.1f} GiB free for the cache")


def _data() -> list[Finding]:
    findings = []
    for root in data_roots():
        if root.exists():
            problems = [str(problem) for problem in Pack([root]).verify()]
            files = len(Pack([root]).files())
            findings.append(Finding(f"data {root}", not problems, "; ".join(problems) or f"{files} files"))
    return findings or [Finding("data", True, "no pack yet; a run fetches what it needs")]


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
