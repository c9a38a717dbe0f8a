"""`leanboard new-method`: writes a plug-in that already works, to be changed.

What is written is the package `template` next to this file, with its name replaced: a real method, kept by the tests of
the house like any other.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from bench.errors import UsageError
from bench.registry import load_registry

TEMPLATE = Path(__file__).parent / "template"
FILES = ("__init__.py", "method.py", "presets.yaml", "card.md")


def new_method(name: str, into: Path) -> list[Path]:
    """Write the plug-in `name` as a folder in `into` (made where it is missing); returns the files.

    Raises:
        UsageError: the name cannot be one, or is taken, or the folder is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' cannot be a method's name: it needs a letter, then lower-case letters, digits or '_', "
            "and may be no word of Python's"
        )
    registry = load_registry([into] if into.is_dir() else [])
    if name in registry.methods:
        raise UsageError(f"method '{name}' exists already, from {registry.methods[name].origin}; choose another name")
    folder = into / name
    if folder.exists():
        raise UsageError(f"{folder} exists already; nothing is overwritten")
    words = name.split("_")
    named = {"template": name, "Template": "".join(map(str.capitalize, words)), "TEMPLATE": " ".join(words)}
    folder.mkdir(parents=True)
    for file in FILES:
        text = (TEMPLATE / file).read_text(encoding="utf-8")
        text = re.sub(r"(?i)template", lambda found: named[found[0]], text)
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in FILES]
