"""Verbs that list methods, models and tasks, and that test and write methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import Json, Plugins, TaskFiles, app, show


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's card, config and presets.")] = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the compression methods, or show one."""
    from bench.registry import load_registry
    from bench.views import method_details, method_list

    registry = load_registry(plugins or [])
    show(method_details(registry.method(name)) if name else method_list(registry), as_json)


@app.command("test-method")
def conformance(
    name: Annotated[str, typer.Argument(help="The method to test.")], plugins: Plugins = None, as_json: Json = False
) -> None:
    """Check on tiny random models that a method keeps the contract. Exit code 1: it does not."""
    from bench.registry import load_registry

    entry = load_registry(plugins or []).method(name)
    from bench.conformance.kit import examine
    from bench.conformance.reader import Reader

    outcomes = []
    with Reader() as reader:
        for outcome in examine(entry, reader):
            outcomes.append(outcome)
            if not as_json:
                typer.echo(f"{outcome.status:9}  {outcome.check}: {outcome.reason}")
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if as_json:
        show([vars(outcome) for outcome in outcomes], True)
    else:
        seconds = sum(outcome.seconds for outcome in outcomes)
        typer.echo(f"{name}: {failed or 'none'} of {len(outcomes)} checks failed, {seconds:.0f} s")
    if failed:
        raise typer.Exit(1)


@app.command("new-method")
def scaffold(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and '_'.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of plug-ins to write it into.")] = Path("plugins"),
) -> None:
    """Write a small working method, as a plug-in to change."""
    from bench.scaffold import new_method

    for path in new_method(name, into):
        typer.echo(f"wrote {path}")
    typer.echo(
        f"next: change it, then\n  leanboard test-method {name} --plugins {into}\n"
        f"and, with a suite that lists it under methods,\n"
        f"  leanboard run SUITE --plugins {into} --only method={name}"
    )


@app.command()
def models(as_json: Json = False) -> None:
    """List the models of the catalogue and whether their weights are here."""
    from bench.views import model_list

    show(model_list(), as_json)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task's file, data and flags.")] = None,
    tasks: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """List the tasks and their protocols, or show one."""
    from bench.views import task_details, task_list

    show(task_details(name) if name else task_list(), as_json)
