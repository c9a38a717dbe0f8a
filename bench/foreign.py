"""Models that bring code of their own, where the user trusts it: `--trust-remote-code`.

That code runs once, in a process of its own, and only to be compared. Where it gives the same logits and token ids as
transformers' own classes, a copy of the checkpoint without the code is used in its place.
Code that computes something else is refused, as pruning could not keep it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from bench.checkpoint_files import bins_alone
from bench.data.files import locked, read_json, replacing
from bench.data.store import file_sha256
from bench.errors import UsageError
from bench.family import of_type
from bench.paths import cache_dir
from bench.process import run_module

READ = (".safetensors", ".json", ".model")
NAMES_CODE = ("config.json", "tokenizer_config.json")


def plain_copy(folder: Path, on_progress: Callable[[str], None]) -> tuple[Path, str | None]:
    """A copy of `folder` without names of code, and the code's SHA-256; `folder` and None if it has no code.

    Raises:
        DataError: a file is damaged.
        UsageError: the code fails, or computes something else than transformers' own classes.
    """
    config = read_json(folder / "config.json")
    family = of_type(str(config.get("model_type")))
    if "auto_map" not in config or family is None or config["model_type"] == family.lean_type:
        return folder, None
    if bins_alone(folder):
        raise UsageError(f"{folder}: code of its own is compared on *.safetensors alone, and it has pytorch_model*.bin")
    code = _digest({path.name: file_sha256(path) for path in sorted(folder.glob("*.py"))})
    files = [path for path in sorted(folder.iterdir()) if path.suffix in READ and path.is_file()]
    copy = cache_dir() / "models" / f"plain-{_digest([code, {p.name: file_sha256(p) for p in files}])[:16]}"
    with locked(copy):
        if not copy.is_dir():
            on_progress(f"{folder}: running its own code, to compare it with that of {family.title}")
            with replacing(copy) as new:
                new.mkdir()
                for path in files:
                    _copy_plain(path, new / path.name)
                problem = run_module("bench.model.compare_foreign", str(folder), str(new))
                if problem is not None:
                    raise UsageError(f"{folder}: its own code cannot be replaced by that of {family.title}: {problem}")
    return copy, code


def _copy_plain(path: Path, new: Path) -> None:
    """Link the file; copy it without names of code where it may have some."""
    if path.name in NAMES_CODE:
        content = {name: value for name, value in read_json(path).items() if name != "auto_map"}
        new.write_text(json.dumps(content, indent=2), encoding="utf-8")
    else:
        new.symlink_to(path.resolve())


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
