"""The conformance kit on every method that the registry finds: nothing is listed here."""

import subprocess
import sys

import pytest

from bench.conformance.kit import examine
from bench.conformance.reader import Reader
from bench.registry import MethodEntry, load_registry

pytestmark = pytest.mark.slow

REGISTRY = load_registry()


def test_no_method_is_broken() -> None:
    assert REGISTRY.broken == {}


@pytest.mark.parametrize("entry", REGISTRY.methods.values(), ids=list(REGISTRY.methods))
def test_method_keeps_the_contract(entry: MethodEntry, reader: Reader) -> None:
    outcomes = list(examine(entry, reader))
    assert [f"{o.check}: {o.reason}" for o in outcomes if o.status == "failed"] == []
    assert sum(o.status == "ok" for o in outcomes) > len(outcomes) / 2


def test_finding_methods_imports_no_torch() -> None:
    code = (
        "import sys\nfrom bench.registry import load_registry\nassert load_registry().methods\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
