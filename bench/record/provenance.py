"""Where and with what a record was made: commit, packages and machine, without the names of hosts and users."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bench.record.schema import Provenance

PACKAGES = ("leanboard", "torch", "transformers", "lm-eval", "peft", "numpy")
ROOT = Path(__file__).resolve().parents[2]
CODE = ("bench", "methods", "tasks")


def provenance(
    seconds: float,
    command: Sequence[str],
    accelerator: str | None = None,
    remote_code: str | None = None,
    model_revision: str | None = None,
) -> Provenance:
    """The provenance of a record that is made now.

    `seconds` is the wall time the cell took, `command` the command line that asked for it, `accelerator` the device's
    name where the worker (which alone has torch) uses one. `packages` holds what is installed, and Python itself.
    """
    commit, dirty = _checkout()
    program, *arguments = command or [""]
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=seconds,
        command=[Path(program).name, *map(without_user, arguments)],
        commit=commit,
        dirty=dirty,
        packages=_packages(),
        machine={**_machine(), "accelerator": accelerator, "load": round(psutil.getloadavg()[0], 2)},
        remote_code=remote_code,
        model_revision=model_revision,
    )


def machine_fingerprint(accelerator: str | None) -> str:
    """12 hex digits that name the machine in the keys of speed cells: processor, core counts and accelerator."""
    return fingerprint_of({**_machine(), "accelerator": accelerator})


def fingerprint_of(machine: Mapping[str, object]) -> str:
    """The same for the machine in a record."""
    parts = [machine.get(name) for name in ("cpu", "physical_cores", "logical_cores", "accelerator")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@cache
def accelerator_name() -> str | None:
    """Name of the first NVIDIA GPU that this process may use, from `nvidia-smi`; None where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return None
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines()[0].strip() if names else None


@cache
def accelerator_ids() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls each NVIDIA GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [] if given == "-1" else [gpu for gpu in given.split(",") if gpu]
    return (_output("nvidia-smi", "--query-gpu=index", "--format=csv,noheader") or "").split()


@cache
def accelerator_memory() -> int | None:
    """Bytes of memory of the first GPU; None where `nvidia-smi` does not report it."""
    totals = _output("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    first = totals.splitlines()[0].strip() if totals else ""
    return int(first) * 2**20 if first.isdecimal() else None


def gpu_states() -> list[tuple[str, int, int]]:
    """Name, bytes in all and bytes free of each NVIDIA GPU of this machine, from `nvidia-smi`."""
    query = "--query-gpu=name,memory.total,memory.free"
    lines = (_output("nvidia-smi", query, "--format=csv,noheader,nounits") or "").splitlines()
    found = [[part.strip() for part in line.rsplit(",", 2)] for line in lines]
    return [(name, int(total) * 2**20, int(free) * 2**20) for name, total, free in found if (total + free).isdecimal()]


def without_user(text: str) -> str:
    """`text` with `~` for the user's home folder, and `USER` for a folder that has the user's name."""
    try:
        home, user = Path.home(), getpass.getuser()
    except (OSError, KeyError, RuntimeError):  # an account without a name or a home
        return text
    if home.name:
        text = re.sub(rf"{re.escape(str(home))}(?!\w)", "~", text)
    return re.sub(rf"(?<=/){re.escape(user)}(?=/|$)", "USER", text)


@cache
def _machine() -> dict[str, str | int | float | None]:
    return {
        "cpu": _cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    if found:
        return " ".join(found[1].split())
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def _checkout() -> tuple[str | None, bool | None]:
    """Commit of the package's own checkout, and whether code or task files differ from it; None where there is none."""
    top = _output("git", "-C", str(ROOT), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return None, None
    commit = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(ROOT), "status", "--porcelain", "--", *CODE)
    return commit, None if commit is None or changes is None else bool(changes)


def _output(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or hangs."""
    try:
        environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
