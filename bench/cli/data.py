"""`leanboard data`: the local pack of task and calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import Json, Offline, TaskFiles, app, is_offline, show

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The local pack of task and calibration data.")
app.add_typer(data_app, name="data")


@data_app.command("fetch")
def data_fetch(tasks: TaskFiles = None, offline: Offline = False) -> None:
    """Build the local pack: every file that a task or suite reads, from the first source that has it."""
    from bench.data.sources import ensure
    from bench.views import all_data

    missing = ensure(all_data(), offline=is_offline(offline), on_progress=typer.echo)
    for ref, reason in missing.items():
        typer.echo(f"{ref}: {reason}", err=True)
    typer.echo(f"{len(all_data()) - len(missing)} of {len(all_data())} files are here")
    if missing:
        raise typer.Exit(1)


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """Texts and task data by name: what is in the local packs, and what can be fetched."""
    from bench.views import data_list as rows

    show(rows(), as_json)


@data_app.command("add")
def data_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What suites call the text: <dataset>/<split>.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files: .jsonl, .json, .csv, .parquet or .txt.")],
    column: Annotated[str | None, typer.Option("--column", help="Column of the text, if not 'text'.")] = None,
) -> None:
    """Add your own texts to the local pack.

    A row is a document; in a .txt file a paragraph is, up to a blank line. Rows with instruction and output stay
    instructions.
    """
    from bench.data.own_files import add_files
    from bench.data.pack import Pack

    path = add_files(name, files, column)
    [file] = [file for file in Pack.default().files() if file.ref == name]
    typer.echo(f"{name}: {file.entry.rows} rows ({', '.join(file.entry.columns)}) in {path}")


@data_app.command("verify")
def data_verify(as_json: Json = False) -> None:
    """Check every file of the local packs against its manifest. Exit code 1: something is damaged."""
    from bench.data.pack import Pack

    problems = [str(problem) for problem in Pack.default().verify()]
    if as_json:
        show(problems, True)
    else:
        typer.echo("\n".join(problems) or "every file is as its manifest says")
    if problems:
        raise typer.Exit(1)
