"""Verbs that export checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import Results, app
from bench.errors import unknown


@app.command()
def export(
    row: Annotated[
        str,
        typer.Argument(
            metavar="ROW", help="A row's name or words of it ('llm_pruner + lora params=0.2'), or the start of a key."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to write, new or empty.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, float16 or bfloat16; else that of the measurement.")
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="hf: a folder for transformers, lm-eval and vLLM; gguf: a file for llama.cpp."),
    ] = "hf",
    results: Results = Path("results"),
) -> None:
    """Write a checkpoint of the board in a form that others load, with a model card, and check that it loads."""
    from bench.serve.find import find_row

    if form not in ("hf", "gguf"):
        raise unknown("format", form, ["hf", "gguf"], "--format")
    found = find_row(row, results)
    from bench.serve.export import export as write

    for note in write(found, to, dtype=dtype, form="gguf" if form == "gguf" else "hf"):
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"wrote {to} ({found.label})")
