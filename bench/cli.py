"""The `leanboard` command: one short function per verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import Cancelled, LeanboardError, UsageError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.run.plan import Plan

PIPE_WIDTH = 160

app = typer.Typer(
    name="leanboard", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Compress LLaMA-family models with every method under the same conditions, and print one table to believe.",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The local pack of task and calibration data.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of the records and of what is made from them.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugins", help="Folder or file of methods; may be given several times.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=VALUE", help="Only cells with this model, method, preset, recovery, target, "
                                                      "seed or task; may be given several times."),
]
ModelPath = Annotated[
    list[str] | None, typer.Option("--model-path", metavar="ID=DIR", help="Where the weights of a model lie.")
]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="random", help="Random weights of the same shapes: rows of size, "
                             "speed and memory, without any of quality, where no weights are at hand.")
]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of one that comes along.")]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    os.environ["LEANBOARD_DEBUG"] = "1" if debug else ""


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's card, config and presets.")] = None,
    plugins: Plugins = None, as_json: Json = False,
) -> None:
    """List the compression methods, or show one."""
    from bench.registry import load_registry
    from bench.views import method_details, method_list

    registry = load_registry(plugins or [])
    _show(method_details(registry.method(name)) if name else method_list(registry), as_json)


@app.command("test-method")
def conformance(
    name: Annotated[str, typer.Argument(help="The method to test.")], plugins: Plugins = None, as_json: Json = False
) -> None:
    """Check on tiny random models that a method keeps the contract. Exit code 1: it does not."""
    from bench.registry import load_registry

    entry = load_registry(plugins or []).method(name)
    from bench.conformance.kit import examine

    outcomes = []
    for outcome in examine(entry):
        outcomes.append(outcome)
        if not as_json:
            typer.echo(f"{outcome.status:9}  {outcome.check}: {outcome.reason}")
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if as_json:
        _show([vars(outcome) for outcome in outcomes], True)
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
    """Write a small method that works, as a plug-in to change."""
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

    _show(model_list(), as_json)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks, their protocols and the data they read."""
    from bench.views import task_list

    _show(task_list(), as_json)


@app.command()
def plan(
    suite: SuiteName, results: Results = Path("results"), only: Only = None, model_path: ModelPath = None,
    weights: Weights = None, plugins: Plugins = None, offline: Offline = False, as_json: Json = False,
) -> None:
    """Show every cell of a suite and whether it is finished. Computes nothing."""
    from bench.views import plan_list

    made = _plan(suite, results, only, model_path, weights, plugins, offline)
    for note in made.notes:
        _console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    _show(plan_list(made), as_json)


@app.command()
def run(
    suite: SuiteName, results: Results = Path("results"), only: Only = None, model_path: ModelPath = None,
    weights: Weights = None, plugins: Plugins = None, offline: Offline = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Worker processes at a time.")] = 1,
) -> None:
    """Run what is not finished of a suite, then print the board and write CSVs, Markdown and plots.

    Failed cells are tried again; finished ones are never computed twice. Exit code 3: some cells failed.
    """
    from bench.registry import task_groups
    from bench.report import report as make_report
    from bench.report.tables import print_table
    from bench.run.executors import run_jobs
    from bench.run.progress import Progress, past_seconds

    console = _console()
    made = _plan(suite, results, only, model_path, weights, plugins, offline)
    for note in made.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    made.make_weights(_say)
    with Progress(console, made, past_seconds(results)) as progress:
        try:
            run_jobs(made.open_jobs(), jobs, progress.on_event)
        except KeyboardInterrupt:
            raise Cancelled("interrupted; what is finished is kept, run the same command again to go on") from None
    outcome = make_report(results, task_groups())
    print_table(outcome.board, console)
    _tell(outcome, console)
    if progress.failed:
        raise typer.Exit(3)


@app.command()
def report(results: Results = Path("results"), as_json: Json = False) -> None:
    """Regenerate every CSV, Markdown file and plot from the records."""
    from bench.registry import task_groups
    from bench.report import report as make_report
    from bench.report.tables import print_table

    outcome = make_report(results, task_groups())
    if as_json:
        _show({"written": [str(p) for p in outcome.written], "problems": [str(p) for p in outcome.problems]}, True)
        return
    console = _console()
    print_table(outcome.board, console)
    _tell(outcome, console)


@app.command()
def why(
    a: Annotated[str, typer.Argument(help="Key (or the start of one) or file of a record.")],
    b: Annotated[str, typer.Argument(help="The same of another.")],
    results: Results = Path("results"), as_json: Json = False,
) -> None:
    """Say which ingredients of two records differ, and so why one was not reused for the other."""
    from bench.record.store import Store

    store = Store(results)
    rows = [{"field": f, a: str(left), b: str(right)} for f, left, right in store.why(store.find(a), store.find(b))]
    if not rows and not as_json:
        typer.echo("the two records have the same ingredients")
        return
    _show(rows, as_json)


@data_app.command("fetch")
def data_fetch(offline: Offline = False) -> None:
    """Build the local pack: every file that a task or suite reads, from the first source that has it."""
    from bench.data.sources import ensure
    from bench.views import all_data

    missing = ensure(all_data(), offline=_offline(offline), on_progress=typer.echo)
    for ref, reason in missing.items():
        typer.echo(f"{ref}: {reason}", err=True)
    typer.echo(f"{len(all_data()) - len(missing)} of {len(all_data())} files are here")
    if missing:
        raise typer.Exit(1)


@data_app.command("verify")
def data_verify(as_json: Json = False) -> None:
    """Check every file of the local packs against its manifest. Exit code 1: something is damaged."""
    from bench.data.pack import Pack

    problems = [str(problem) for problem in Pack.default().verify()]
    if as_json:
        _show(problems, True)
    else:
        typer.echo("\n".join(problems) or "every file is as its manifest says")
    if problems:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: packages, memory, disk, data, models. Exit code 1: something stands in the way."""
    from bench.doctor import examine

    findings = examine()
    _show([finding.row() for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _plan(
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
        model_paths={key: Path(value) for key, value in _pairs(model_path, "--model-path").items()},
        plugins=[p.resolve() for p in plugins or []], only=_pairs(only, "--only"), offline=_offline(offline),
        command=["leanboard", *sys.argv[1:]], say=_say,
        random_weights=weights == "random",
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _pairs(items: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError(f"{option} {item}: must be KEY=VALUE")
        pairs[key] = value
    return pairs


def _offline(flag: bool) -> bool:
    from bench.paths import offline

    if flag:
        os.environ["LEANBOARD_OFFLINE"] = "1"
    return flag or offline()


def _show(content: Any, as_json: bool) -> None:
    """Print rows or a nested description, as JSON or for reading."""
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from bench.views import renderable

    _console().print(renderable(content))


def _tell(outcome: Any, console: Console) -> None:
    for problem in outcome.problems:
        _console(stderr=True).print(f"warning: {problem}", soft_wrap=True, markup=False)
    for path in outcome.written:
        console.print(f"wrote {path}", soft_wrap=True, markup=False, highlight=False)


def _console(stderr: bool = False) -> Console:
    """As wide as the terminal; a file or pipe, which has no width, gets whole tables."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, width=PIPE_WIDTH)


def main() -> None:
    """Entry point: errors of ours become one sentence and an exit code; `--debug` shows the traceback."""
    try:
        app()
    except LeanboardError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def _fail(sentence: str, code: int) -> None:
    if os.environ.get("LEANBOARD_DEBUG"):
        traceback.print_exc()
    typer.echo(f"leanboard: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
