"""Loading plug-ins: what stands in the source is what runs."""

import os
import sys
from pathlib import Path

import pytest

from bench.registry import load_registry

PLUGIN = """
from bench.method import Method, Traits
{more}

class Same(Method):
    name, version, traits = "same", {version}, Traits(title="Same", track="control")

    def compress(self, model, ctx):
        return model
"""


def write(path: Path, text: str) -> None:
    """Always with the same time, as of an edit within a second."""
    path.write_text(text)
    os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def _bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.mark.usefixtures("_bytecode")
def test_an_edit_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    for version in ("1", "2"):
        write(tmp_path / "same.py", PLUGIN.format(more="", version=f'"{version}"'))
        assert load_registry([tmp_path]).method("same").cls.version == version


@pytest.mark.usefixtures("_bytecode")
def test_and_so_it_is_in_a_module_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "packed"
    package.mkdir()
    write(package / "__init__.py", PLUGIN.format(more="from .inner import VERSION", version="VERSION"))
    for version in ("1", "2"):
        write(package / "inner.py", f'VERSION = "{version}"\n')
        sys.modules.pop("leanboard_plugins.packed.inner", None)
        assert load_registry([tmp_path]).method("same").cls.version == version
