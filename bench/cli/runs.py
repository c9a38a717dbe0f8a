"""Verbs that run a suite, or say what running it would take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    Json,
    ModelPath,
    Offline,
    Only,
    Plugins,
    Results,
    SuiteName,
    Weights,
    app,
    is_offline,
    make_console,
    say,
    show,
)
from bench.cli.reports import tell
from bench.errors import Cancelled, UsageError, unknown

if TYPE_CHECKING:
    from bench.run.plan import Plan


@app.command()
def plan(
    suite: SuiteName, results: Results = Path("results"), only: Only = None, model_path: ModelPath = None,
    weights: Weights = None, plugins: Plugins = None, offline: Offline = False, as_json: Json = False,
) -> None:
    """Show every cell of a suite and whether it is finished. Computes nothing."""
    from bench.views import plan_list

    made = planned(suite, results, only, model_path, weights, plugins, offline)
    for note in made.notes:
        make_console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    show(plan_list(made), as_json)


@app.command()
def run(
    suite: SuiteName, results: Results = Path("results"), only: Only = None, model_path: ModelPath = None,
    weights: Weights = None, plugins: Plugins = None, offline: Offline = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Worker processes at a time.")] = 1,
) -> None:
    """Run what is not finished of a suite, then print the board and write CSVs, Markdown and plots.

    Failed cells are tried again; finished ones are never computed twice. Exit code 3: some cells failed.
    """
    from bench.registry import load_registry, task_groups
    from bench.report import report as make_report
    from bench.report.tables import print_table
    from bench.run.executors import run_jobs
    from bench.run.progress import Progress

    console = make_console()
    made = planned(suite, results, only, model_path, weights, plugins, offline)
    for note in made.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    made.make_weights(say)
    with Progress(console, made, jobs) as progress:
        try:
            run_jobs(made.open_jobs(), jobs, progress.on_event)
        except KeyboardInterrupt:
            raise Cancelled("interrupted; what is finished is kept, run the same command again to go on") from None
    outcome = make_report(results, task_groups(), load_registry(plugins or []).methods)
    print_table(outcome.board, console)
    tell(outcome, console)
    if progress.failed:
        raise typer.Exit(3)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: packages, memory, disk, data, models. Exit code 1: something stands in the way."""
    from bench.doctor import examine

    findings = examine()
    show([finding.row() for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def planned(
    suite: str, results: Path, only: list[str] | None, model_path: list[str] | None, weights: str | None,
    plugins: list[Path] | None, offline: bool,
) -> Plan:
    from bench.registry import load_registry
    from bench.run.plan import make_plan
    from bench.suite import load_suite

    if weights not in (None, "random"):
        raise unknown("kind of weights", str(weights), ["random"], "--weights")
    return make_plan(
        load_suite(suite), load_registry(plugins or []), results,
        model_paths={key: Path(value) for key, value in pairs(model_path, "--model-path").items()},
        plugins=[p.resolve() for p in plugins or []], only=pairs(only, "--only"), offline=is_offline(offline),
        command=["leanboard", *sys.argv[1:]], say=say,
        random_weights=weights == "random",
    )


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError(f"{option} {item}: must be KEY=VALUE")
        pairs[key] = value
    return pairs
