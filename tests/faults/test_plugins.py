"""Plug-ins that do what they should not: each ends as the right record, and what runs after them is unharmed."""

from pathlib import Path
from typing import Any

import pytest

from bench.record.store import Store
from bench.run.executors import run_jobs
from tests.faults.conftest import Tally
from tests.run.bad import jobs_of, write_plugins
from tests.suites import make_suite

pytestmark = [pytest.mark.slow, pytest.mark.faults]

DISTURBS = """
random.seed(7); np.random.seed(7); torch.manual_seed(7)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(True)
"""
HOOKS = "for module in model.modules(): module.register_forward_hook(lambda m, i, o: o)"
GLOBAL_HOOKS = """
from torch.nn.modules.module import register_module_forward_hook
register_module_forward_hook(lambda m, i, o: o * 2 if torch.is_tensor(o) else o)
"""
HARMLESS = {
    "disturbs": DISTURBS,
    "prints": "print('x' * 2**20); sys.stderr.write('y' * 2**20); os.write(1, b'z' * 2**20)",
    "writes_events": 'print(\'{"event": "done", "key": "x"}\', flush=True)',
    "leaves_hooks": HOOKS,
    "asks_for_gradients": "model.requires_grad_(True)",
}
BAD = {
    "raises": ("raise RuntimeError('a planted error')", "exception.RuntimeError"),
    "raises_badly": ("raise type('Odd', (Exception,), {'__str__': lambda self: ''})", "exception.Odd"),
    "exits": ("os._exit(7)", "worker_died"),
    "asks_to_exit": ("sys.exit(0)", "worker_died"),
    "is_killed": ("os.kill(os.getpid(), 9)", "worker_died"),
    "is_aborted": ("os.abort()", "worker_died"),
    "overflows": ("def f(): f()\nf()", "exception.RecursionError"),
    "not_a_number": ("model.lm_head.weight.data[0, 0] = float('nan')", "MethodError"),
    "infinite": ("model.model.norm.weight.data[0] = float('inf')", "MethodError"),
    "returns_nothing": ("return None", "MethodError"),
    "leaves_global_hooks": (GLOBAL_HOOKS, "MethodError"),
}


def swept(root: Path, methods: list[str], bodies: dict[str, str], targets: list[Any]) -> dict[tuple[str, str], Any]:
    write_plugins(root / "plugins", bodies)
    make_suite(root, methods=methods, tasks=["wikitext2@128/limit2"], targets=targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANBOARD_DATA", str(root / "pack"))
        patch.setenv("LEANBOARD_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        run_jobs(jobs_of(root), 1, lambda event: None)
    records, problems = Store(root / "results").read_all()
    assert problems == []
    return {(record.method, record.kind): record for record in records}


def test_what_a_plug_in_changes_around_it_changes_no_number(tmp_path: Path, tally: Tally) -> None:
    found = swept(tmp_path, ["dense", *HARMLESS], HARMLESS, [])
    assert {record.status for record in found.values()} == {"ok"}
    expected = found["dense", "measure"]
    for name in HARMLESS:
        assert (found[name, "measure"].metrics, found[name, "measure"].evidence) == (
            expected.metrics,
            expected.evidence,
        ), name
    tally(
        "plug-in that changes random states, threads, the dtype; prints megabytes; leaves hooks",
        len(HARMLESS),
        "the same numbers as without",
    )


def test_a_plug_in_that_fails_costs_its_own_cells_alone(tmp_path: Path, tally: Tally) -> None:
    found = swept(tmp_path, [*BAD, "dense"], {name: body for name, (body, _) in BAD.items()}, [])
    codes = {name: found[name, "artifact"].error.code for name in BAD}
    assert codes == {name: code for name, (_, code) in BAD.items()}
    assert {found[name, "artifact"].status for name in BAD} == {"failed"}
    assert {found[name, "measure"].status for name in BAD} == {"skipped"}
    assert {found["dense", kind].status for kind in ("artifact", "measure")} == {"ok"}
    tally(
        "plug-in that raises, exits, is killed, aborts, overflows, gives NaN, returns nothing, hooks all of torch",
        len(BAD),
        "its cell failed with the reason, what needs it is skipped; the next is unharmed",
    )


def test_a_plug_in_that_lies_about_its_ratio_has_failed(tmp_path: Path, tally: Tally) -> None:
    found = swept(tmp_path, ["lies"], {"lies": ""}, [{"basis": "params", "value": 0.2}])
    record = found["lies", "artifact"]
    assert (record.status, record.error.code) == ("failed", "MethodError")
    assert "the method removed 0.0000" in record.error.message
    tally("plug-in that lies about its ratio", 1, "its cell failed: the size is counted, not believed")
