"""Verbs about the records themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import Json, Results, app, make_console, show


@app.command()
def check(
    results: Annotated[Path, typer.Argument(help="Folder of records, such as a contributor's.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Compute keys, file names and metrics of records again, and compare. Exit code 1: something is wrong."""
    from bench.errors import UsageError
    from bench.record.check import check_records
    from bench.record.store import Store

    if not Store(results).runs.is_dir():
        raise UsageError(f"{results}: there is no folder 'runs' with records in it")
    problems = check_records(results)
    if as_json:
        show(problems, True)
    else:
        count = len(Store(results).files())
        typer.echo("\n".join(problems) or f"all {count} records are whole")
    if problems:
        raise typer.Exit(1)


@app.command()
def gc(results: Results = Path("results"), as_json: Json = False) -> None:
    """List the records that no board shows, superseded or stale, and why. Deletes nothing."""
    from bench.record.store import Store
    from bench.report.hidden import hidden

    store = Store(results)
    records, problems = store.read_all()
    rows = [{"record": str(store.path_of(found.record)), "why": found.why} for found in hidden(records)]
    if rows or as_json:
        show(rows, as_json)
    else:
        typer.echo(f"all {len(records)} records are shown")
    for problem in problems:
        make_console(stderr=True).print(f"warning: {problem}", soft_wrap=True, markup=False)
