"""`leanboard measure-speed`: compare the speed of two checkpoints, outside any suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import Json, Offline, app, is_offline, make_console, say, show
from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from bench.measure.generation.session import Session


@app.command("measure-speed")
def measure_speed(
    a: Annotated[str, typer.Argument(help="Folder or catalogue id of a checkpoint, the reference.")],
    b: Annotated[str, typer.Argument(help="The same of another.")],
    backend: Annotated[str, typer.Option("--backend", help="Engine that generates: hf is transformers.")] = "hf",
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="Sequences at once; may be given several times.", show_default="1"),
    ] = None,
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Prompt tokens of each sequence.")] = 64,
    new: Annotated[int, typer.Option("--new", min=1, help="New tokens of each sequence.")] = 32,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Timed rounds of each, A-B-B-A.")] = 6,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Time two checkpoints in turn, A-B-B-A: how many times as fast B generates as A, with a 95 % interval."""
    from bench.catalogue import resolve
    from bench.measure.generation.backend import Workload
    from bench.measure.generation.session import Candidate, play
    from bench.task import BACKENDS

    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS, "--backend")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: must be cpu or cuda")
    folders = {"dense": a, "measured": b}
    candidates = {
        name: Candidate(resolve(model, offline=is_offline(offline)).path, dtype, device)
        for name, model in folders.items()
    }
    rows = []
    for size in dict.fromkeys(batch or [1]):
        session = play(backend, candidates, Workload(size, prompt, new), rounds)
        rows.append(_row(f"{backend}/b{size}/p{prompt}/n{new}", session))
        for note in session.notes:
            if as_json:
                say(f"note: {note}")
            else:
                make_console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    show(rows, as_json)


def _row(protocol: str, session: Session) -> dict[str, Any]:
    """The ratios of B to A, each with its interval, and the numbers of both."""
    from bench.measure.generation.rounds import throughput
    from bench.measure.generation.statistics import ratio_of_rounds

    [found] = session.rounds.values()
    row: dict[str, Any] = {"protocol": protocol}
    for what, seconds in (("speed-up", "total"), ("prefill", "first"), ("decoding", "decoding")):
        times = [[getattr(g, seconds) for g in found[name]] for name in ("dense", "measured")]
        if all(map(all, times)):
            value, (low, high) = ratio_of_rounds(*times)
            row |= {what: round(value, 4), f"{what} low": round(low, 4), f"{what} high": round(high, 4)}
    row["possible"] = round(session.least["dense"] / session.least["measured"], 4)
    for name, letter in (("dense", "A"), ("measured", "B")):
        row[f"{letter} tokens/s"] = round(throughput(found[name]), 2)
        row[f"{letter} peak MB"] = round((session.memory[name].peak or 0) / 1e6, 1) or None
    return row | {"disturbed": session.disturbed}
