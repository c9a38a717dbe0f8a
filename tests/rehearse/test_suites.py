"""The suites of real size, and a Qwen, rehearsed: thinned out to a row of each method and recovery, and a task of each
kind. `tox -e rehearse` does them whole. Stand-ins come from a hub, so what a user downloads is downloaded.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import CATALOGUE, HubModel
from bench.registry import load_registry
from bench.rehearse import rehearsal
from bench.run.executors.inline import run_inline
from bench.run.plan import Plan, make_plan
from bench.suite import Suite, load_suite
from tests.hub import Hub

TASKS = ["size", "wikitext2@128"]
MORE = ["piqa", "generate@hf/b1/p64/n128"]
"""Of two rows: they ask the same of every checkpoint."""
FULL = ("dense", "llm_pruner")
ROWS = {"llama7b": None, "vicuna7b": FULL, "qwen": ("dense", "random")}
"""The rows of each suite; what differs between the suites is how their models come, not their methods."""


def thin(suite: Suite) -> Suite:
    first = {(item.name, str(item.recovery)): item for item in reversed(suite.methods)}
    rows = ROWS[suite.name]
    methods = [
        item.model_copy(update={"tasks": MORE if item.name in FULL else []})
        for item in suite.methods
        if item is first[item.name, str(item.recovery)] and (rows is None or item.name in rows)
    ]
    return suite.model_copy(update={"methods": methods, "targets": suite.targets[:1], "tasks": TASKS})


def run(plan: Plan) -> None:
    run_inline(plan.open_jobs(), lambda event: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_suite_stands_its_rehearsal(name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []

    def through_the_hub(*arguments: Any, model_paths: dict[str, Path], offline: bool, **more: Any) -> Plan:
        [(model, folder)] = model_paths.items()
        source = CATALOGUE[model].source
        if not isinstance(source, HubModel):
            return make_plan(*arguments, model_paths=model_paths, offline=offline, **more)
        served.append(hub.add(source.repo, folder))
        return make_plan(*arguments, model_paths={}, offline=False, **more)

    monkeypatch.setattr(rehearsal, "make_plan", through_the_hub)
    suite = thin(load_suite(name))
    ended = rehearsal.rehearse(
        suite,
        load_registry(),
        run,
        only={},
        model_paths={},
        plugins=[],
        offline=True,
        command=["leanboard", "run", name, "--rehearse"],
        say=print,
    )
    assert not ended.failed
    assert ended.no_report is None
    assert {cell.label.split(" · ")[1] for cell in ended.cells} == {item.name for item in suite.methods}
    assert len(served) == (name != "qwen")
    assert ended.made_up  # no network in tests but the hub's
