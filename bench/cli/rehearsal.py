"""`leanboard run SUITE --rehearse`: what does not go with it, and the table at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.cli.common import make_console, say
from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.rehearse.rehearsal import Rehearsal
    from bench.run.plan import Plan

FIT = {"suite", "only", "model_path", "plugins", "tasks", "offline", "rehearse"}


def check_options(context: typer.Context) -> None:
    """Refuse what a rehearsal has no use for: it runs in this process, in a folder of its own.

    Raises:
        UsageError: such an option was given.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name not in FIT and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--rehearse: {parameter.opts[0]} does not go with it")


def run_rehearsal(
    suite: str,
    only: Mapping[str, str],
    model_paths: Mapping[str, Path],
    plugins: Sequence[Path],
    offline: bool,
    command: Sequence[str],
) -> None:
    """Rehearse, and print how every cell ended. Exit code 3: some failed, or the run itself may stop."""
    from bench.measure.memory import set_aside
    from bench.registry import load_registry, share_plugins
    from bench.rehearse.rehearsal import rehearse
    from bench.run.executors import run_jobs
    from bench.run.progress import Progress
    from bench.suite import load_suite

    console = make_console()

    def run(plan: Plan) -> None:
        for note in plan.notes:
            console.print(f"note: {note}", soft_wrap=True, markup=False)
        with set_aside(), Progress(console, plan, 1) as progress:
            run_jobs(plan.open_jobs(), 1, progress.on_event, executor="inline")

    share_plugins(plugins)
    rehearsal = rehearse(
        load_suite(suite),
        load_registry(plugins),
        run,
        only=only,
        model_paths=model_paths,
        plugins=[path.resolve() for path in plugins],
        offline=offline,
        command=command,
        say=say,
    )
    _show(rehearsal, console)
    if rehearsal.failed or rehearsal.no_report or rehearsal.doubts:
        raise typer.Exit(3)


def _show(rehearsal: Rehearsal, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("row", "cell", "status", "seconds", "made-up data", "why it failed"):
        is_whole = name != "why it failed"
        table.add_column(name, overflow="fold", no_wrap=is_whole, justify="right" if name == "seconds" else "left")
    for cell in rehearsal.cells:
        made_up = ", ".join(cell.made_up)
        fields = (cell.label, cell.what, cell.status, f"{cell.seconds:.1f}", made_up, cell.message)
        table.add_row(*map(Text, fields), style=None if cell.status == "ok" else "red")
    console.print(table)
    for ref, reason in rehearsal.made_up.items():
        console.print(f"note: {ref} is made up: {reason}", soft_wrap=True, markup=False)
    for doubt in dict.fromkeys(rehearsal.doubts):
        console.print(f"the run itself may stop: {doubt}", soft_wrap=True, markup=False)
    if rehearsal.no_report:
        console.print(f"the report cannot be made: {rehearsal.no_report}", soft_wrap=True, markup=False)
    seconds = sum(cell.seconds for cell in rehearsal.cells)
    console.print(
        f"rehearsed {len(rehearsal.cells)} cells in {seconds:.0f} s, {len(rehearsal.failed)} failed; report and "
        f"records are in {rehearsal.results}",
        soft_wrap=True,
        markup=False,
    )
