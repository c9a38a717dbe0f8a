"""Plug-ins that do to a worker what plug-ins should not, and jobs that run them."""

from pathlib import Path
from textwrap import dedent, indent

from bench.registry import load_registry
from bench.run.cells import Job
from bench.run.plan import make_plan
from bench.suite import load_suite

PLUGIN = """
import os, random, sys, time
import numpy as np
import torch
from bench.method import Method, Traits

class Bad(Method):
    name = "{name}"
    version = "1"
    traits = Traits(title="{name}", track="pruning", changes={{"shapes"}})

    def compress(self, model, ctx):
{body}
        return model
"""


def write_plugins(folder: Path, bodies: dict[str, str]) -> Path:
    """A plug-in for each name, whose compress() is the body."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (folder / f"{name}.py").write_text(PLUGIN.format(name=name, body=indent(dedent(body) or "pass", " " * 8)))
    return folder


def jobs_of(root: Path, results: str = "results", plugins: tuple[str, ...] = ("plugins",)) -> list[Job]:
    """The open jobs of `root`'s suite, as a run would plan them; its environment must be set."""
    plan = make_plan(
        load_suite(str(root / "suite.yaml")),
        load_registry([root / name for name in plugins]),
        root / results,
        model_paths={},
        plugins=[root / name for name in plugins],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
    )
    return plan.open_jobs()
