"""The `leanboard` command: one short function per verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
import traceback

import typer

# importing them registers the verbs
from bench.cli import data, methods, records, reports, runs, serving, speed  # noqa: F401
from bench.cli.common import app
from bench.errors import LeanboardError


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
