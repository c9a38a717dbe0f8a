"""Verbs that run a suite, or show what running it would take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    TaskFiles,
    TrustCode,
    Weights,
    app,
    folders,
    is_offline,
    make_console,
    pairs,
    say,
    show,
)
from bench.cli.reports import show_outcome
from bench.errors import Cancelled, unknown

if TYPE_CHECKING:
    from bench.run.cells import Job
    from bench.run.executors.attendant import Limits
    from bench.run.keep import Keeping
    from bench.run.plan import Plan

Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Worker processes at a time.")]
Executor = Annotated[
    str, typer.Option("--executor", help="local: worker processes; ray: a Ray cluster; inline: this process.")
]
TimeLimit = Annotated[
    float | None, typer.Option("--time-limit", min=0.1, metavar="SECONDS", help="Time that one cell may take.")
]
MemoryLimit = Annotated[
    float | None, typer.Option("--memory-limit", min=0.1, metavar="GB", help="Memory that a worker may hold.")
]
KeepWhich = Annotated[
    str,
    typer.Option(
        "--keep",
        metavar="none|ok|all",
        help="Checkpoints that stay once their cells are recorded: none, those whose cells all ended well, or all. "
        "One that is removed can be made again from its record.",
    ),
]
DiskLimit = Annotated[
    float | None,
    typer.Option(
        "--disk-limit", min=0.001, metavar="GB", help="Disk that new checkpoints may take; with --keep none at a time."
    ),
]


@app.command()
def plan(
    suite: SuiteName,
    results: Results = Path("results"),
    only: Only = None,
    model_path: ModelPath = None,
    weights: Weights = None,
    plugins: Plugins = None,
    tasks: TaskFiles = None,
    offline: Offline = False,
    trust_remote_code: TrustCode = False,
    cells: Annotated[bool, typer.Option("--cells", help="List single cells with their keys.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is left to do of a suite, and the memory, disk and time it takes, row by row and in all.

    Computes nothing. Hours by count are rough: operations over an assumed rate, within a factor of two or three.
    """
    from bench.run.keep import Keeping
    from bench.views import plan_cells, plan_rows

    made = planned(suite, results, only, model_path, weights, plugins, offline, trust_remote_code, listing=True)
    for note in [*made.notes, *filter(None, [Keeping().problem(made)])]:
        make_console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    show(plan_cells(made) if cells else plan_rows(made), as_json)


@app.command()
def run(
    context: typer.Context,
    suite: SuiteName,
    results: Results = Path("results"),
    only: Only = None,
    model_path: ModelPath = None,
    weights: Weights = None,
    plugins: Plugins = None,
    tasks: TaskFiles = None,
    offline: Offline = False,
    jobs: Jobs = 1,
    executor: Executor = "local",
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    keep: KeepWhich = "all",
    disk_limit: DiskLimit = None,
    trust_remote_code: TrustCode = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Try every cell in minutes, on small stand-ins of the models.")
    ] = False,
) -> None:
    """Run what is not finished of a suite, then print the board and write CSVs, Markdown and plots.

    Failed cells are tried again; finished ones are never computed twice. Exit code 3: some cells failed.
    """
    from bench.run.interrupt import interruptible

    if rehearse:
        from bench.cli.rehearsal import check_options, run_rehearsal

        check_options(context)
        with tidily(), interruptible():
            run_rehearsal(
                suite, pairs(only, "--only"), folders(model_path), plugins or [], is_offline(offline), typed()
            )
        return
    limits, keeping = limits_of(time_limit, memory_limit, executor), keeping_of(keep, disk_limit, executor)
    with tidily(), interruptible():
        made = planned(suite, results, only, model_path, weights, plugins, offline, trust_remote_code)
        carry_out(made, made.open_jobs(), results, jobs, executor, limits, keeping)


@app.command()
def retry(
    suite: SuiteName,
    code: Annotated[str, typer.Option("--code", help="Statuses or error codes, such as oom,timeout.")],
    results: Results = Path("results"),
    only: Only = None,
    model_path: ModelPath = None,
    weights: Weights = None,
    plugins: Plugins = None,
    tasks: TaskFiles = None,
    offline: Offline = False,
    jobs: Jobs = 1,
    executor: Executor = "local",
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    keep: KeepWhich = "all",
    disk_limit: DiskLimit = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Run the cells of a suite whose last record has one of these codes, and those skipped because of them.

    Exit code 3: some cells failed again.
    """
    from bench.run.interrupt import interruptible
    from bench.run.retry import failed_with

    limits, keeping = limits_of(time_limit, memory_limit, executor), keeping_of(keep, disk_limit, executor)
    with tidily(), interruptible():
        made = planned(suite, results, only, model_path, weights, plugins, offline, trust_remote_code)
        chosen = failed_with(made.open_jobs(), set(code.split(",")))
        if not chosen:
            say(f"no record of the suite has the code {code.replace(',', ' or ')}")
            return
        carry_out(made, chosen, results, jobs, executor, limits, keeping)


@app.command()
def status(results: Results = Path("results"), as_json: Json = False) -> None:
    """Show the active runs on a results folder, here or on machines that share it, and how far they are."""
    from bench.run.status import running
    from bench.views import status_lines

    found = running(results)
    if as_json:
        show(found, True)
        return
    for line in status_lines(found) or [f"no run is active on {results}"]:
        typer.echo(line)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: packages, GPUs, memory, disk, data, the hub, models. Exit code 1: a check failed."""
    from bench.doctor import examine

    findings = examine()
    show([finding.row() for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def carry_out(
    made: Plan, chosen: list[Job], results: Path, workers: int, executor: str, limits: Limits, keeping: Keeping
) -> None:
    from bench.registry import load_registry, task_groups
    from bench.report import report as make_report
    from bench.report.tables import print_table
    from bench.run.executors import run_jobs
    from bench.run.fit import record_misfits, split
    from bench.run.progress import Progress
    from bench.run.status import Notice

    console = make_console()
    for note in made.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    jobs, out = split(chosen, {} if executor == "ray" else made.misfits)  # Ray's nodes are other machines
    parts = keeping.parts(jobs, made)
    made.make_weights(say)
    memory = {key: takes.memory for key, takes in made.estimates.items()}
    asked = {key for job in chosen for key in (job.artifact.key, *(cell.key for cell in job.cells))}
    with Progress(console, made, workers, asked) as progress, Notice(results, typed(), progress) as notice:
        record_misfits(out, made.misfits, notice.on_event)
        remove = keeping.remover(made)
        for part in parts:
            run_jobs(part, workers, notice.on_event, executor=executor, limits=limits, memory=memory, on_end=remove)
    outcome = make_report(results, task_groups(), load_registry().methods)
    print_table(outcome.board, console)
    show_outcome(outcome, console)
    if progress.failed:
        raise typer.Exit(3)


@contextmanager
def tidily() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Cancelled("interrupted; finished cells are kept, run the same command again to continue") from None


def limits_of(seconds: float | None, gigabytes: float | None, executor: str) -> Limits:
    from bench.run.executors import check_executor
    from bench.run.executors.attendant import GB, Limits

    limits = Limits(seconds, None if gigabytes is None else round(gigabytes * GB))
    check_executor(executor, limits)
    return limits


def keeping_of(keep: str, gigabytes: float | None, executor: str) -> Keeping:
    from bench.run.executors.attendant import GB
    from bench.run.keep import Keeping

    return Keeping.of(keep, None if gigabytes is None else gigabytes * GB, executor)


def typed() -> list[str]:
    return ["leanboard", *sys.argv[1:]]


def planned(
    suite: str,
    results: Path,
    only: list[str] | None,
    model_path: list[str] | None,
    weights: str | None,
    plugins: list[Path] | None,
    offline: bool,
    trust_remote_code: bool,
    listing: bool = False,
) -> Plan:
    from bench.registry import load_registry, share_plugins
    from bench.run.plan import make_plan
    from bench.suite import load_suite

    if weights not in (None, "random"):
        raise unknown("kind of weights", str(weights), ["random"], "--weights")
    share_plugins(plugins or [])
    return make_plan(
        load_suite(suite),
        load_registry(plugins or []),
        results,
        model_paths=folders(model_path),
        plugins=[p.resolve() for p in plugins or []],
        only=pairs(only, "--only"),
        offline=is_offline(offline),
        command=typed(),
        say=say,
        random_weights=weights == "random",
        trust_remote_code=trust_remote_code,
        listing=listing,
    )
