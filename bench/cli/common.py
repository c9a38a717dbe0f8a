"""Shared by the verbs: the application, the options that several take, and the output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160

app = typer.Typer(
    name="leanboard",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compress language models with every method under the same conditions, and rank them in one table.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of the records and of what is made from them.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugins", help="Folder or file of methods; may be given several times.")
]


def _share(given: list[Path] | None) -> list[Path] | None:
    if given:
        from bench.task_files import share_tasks

        share_tasks(given)
    return given


TaskFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--tasks", help="Folder or file of tasks and task groups; may be given several times.", callback=_share
    ),
]
"""Whatever loads tasks finds them, here and in workers: a verb that takes the option need do nothing with it."""
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=VALUE",
        help="Only cells with this model, method, preset, recovery, target, calibration, seed or task; "
        "may be given several times.",
    ),
]
ModelPath = Annotated[
    list[str] | None,
    typer.Option("--model-path", metavar="ID=DIR", help="Where the weights of a model lie: a folder, or a hub id."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="random",
        help="Random weights of the same shapes, where no weights are available: "
        "rows of size, speed and memory, none of quality.",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the model's own code, once and in a process of its own; "
        "accept the model if its family's classes compute the same.",
    ),
]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a built-in suite.")]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    os.environ["LEANBOARD_DEBUG"] = "1" if debug else ""


def say(line: str) -> None:
    typer.echo(line, err=True)


def is_offline(flag: bool) -> bool:
    from bench.paths import offline

    if flag:
        os.environ["LEANBOARD_OFFLINE"] = "1"
    return flag or offline()


def show(content: Any, as_json: bool) -> None:
    """Print rows or a nested description, as JSON or as tables."""
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from bench.views import renderable

    make_console().print(renderable(content))


def make_console(stderr: bool = False) -> Console:
    """As wide as the terminal; a file or pipe, which has no width, gets whole tables."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, width=PIPE_WIDTH)


def folders(model_path: list[str] | None) -> dict[str, Path]:
    return {key: Path(value) for key, value in pairs(model_path, "--model-path").items()}


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError(f"{option} {item}: must be KEY=VALUE")
        pairs[key] = value
    return pairs
