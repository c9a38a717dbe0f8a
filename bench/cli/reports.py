"""Verbs that read records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import Json, Results, TaskFiles, app, make_console, show

if TYPE_CHECKING:
    from rich.console import Console


@app.command()
def report(
    results: Results = Path("results"),
    tasks: TaskFiles = None,
    as_json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if any byte differs.")] = False,
) -> None:
    """Regenerate every CSV, Markdown file, plot and page from the records."""
    from bench.registry import load_registry, task_groups
    from bench.report import check as differing
    from bench.report import report as make_report
    from bench.report.tables import print_table

    groups, methods = task_groups(), load_registry().methods
    if check:
        paths = [str(path) for path in differing(results, groups, methods)]
        if as_json:
            show(paths, True)
        else:
            lines = [f"{path}: not what the records give" for path in paths]
            typer.echo("\n".join(lines) or "every file is what the records give")
        raise typer.Exit(1 if paths else 0)
    outcome = make_report(results, groups, methods)
    if as_json:
        show({"written": [str(p) for p in outcome.written], "problems": [str(p) for p in outcome.problems]}, True)
        return
    console = make_console()
    print_table(outcome.board, console)
    show_outcome(outcome, console)


@app.command()
def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="A row's name, MODEL/METHOD/PRESET/RECOVERY/TARGET or words of it; the start "
            "of its checkpoint's key; or a results folder."
        ),
    ],
    b: Annotated[str, typer.Argument(help="Another row, or another results folder.")],
    results: Results = Path("results"),
    tasks: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Compare two rows, or the rows that two results folders share: paired, task by task, and how their keys differ."""
    from dataclasses import asdict

    from bench.registry import task_groups
    from bench.report import compare as comparing
    from bench.report.find import Rows

    groups, folders = task_groups(), [Path(side) for side in (a, b) if (Path(side) / "runs").is_dir()]
    only: dict[str, list[str]] = {}
    if len(folders) == 2:
        found = comparing.compare_trees(Rows(folders[0]), Rows(folders[1]), groups)
        pairs, only["only in A"], only["only in B"] = found
    else:
        pairs = [comparing.compare_rows(Rows(results), a, b, groups)]
    if as_json:
        tests = [{**asdict(pair), "tests": [{**asdict(t), "verdict": t.verdict} for t in pair.tests]} for pair in pairs]
        show({"rows": tests, **only}, True)
        return
    for pair in pairs:
        fields = [{"what differs": field, "A": str(x), "B": str(y)} for field, x, y in pair.keys]
        sides = {"row": pair.a} if pair.a == pair.b else {"A": pair.a, "B": pair.b}
        show({**sides, "measured on both": comparing.table(pair) or "nothing", "keys": fields or "the same"}, False)
        typer.echo()
    if only:
        show({side: ", ".join(names) or "no row" for side, names in only.items()}, False)


@app.command()
def why(
    a: Annotated[str, typer.Argument(help="Key (or the start of one) or file of a record, or a row's name.")],
    b: Annotated[str, typer.Argument(help="The same of another.")],
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Show which ingredients of two records differ, and so why one was not reused for the other."""
    from bench.report.find import Rows

    known = Rows(results)
    found = known.store.why(known.record(a), known.record(b))
    rows = [{"field": field, a: str(left), b: str(right)} for field, left, right in found]
    if not rows and not as_json:
        typer.echo("the two records have the same ingredients")
        return
    show(rows, as_json)


def show_outcome(outcome: Any, console: Console) -> None:
    for problem in outcome.problems:
        make_console(stderr=True).print(f"warning: {problem}", soft_wrap=True, markup=False)
    for path in (path for path in outcome.written if path.parent.parent.name != "site"):
        console.print(f"wrote {path}", soft_wrap=True, markup=False, highlight=False)
