"""Plan, run, records and report of a suite in small, in this process and in a folder of the rehearsal's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.data.files import locked
from bench.data.lengths import shortfall
from bench.errors import LeanboardError
from bench.model.stand_in import small_config, write_stand_in
from bench.paths import cache_dir
from bench.record.store import Store
from bench.registry import Registry, task_groups, tasks_named
from bench.rehearse.amounts import TOKENS, Scale
from bench.rehearse.small import refs_of, small_suite
from bench.rehearse.sources import Source, source_of
from bench.rehearse.texts import gather
from bench.report import report
from bench.run.cells import ArtifactCell, Job
from bench.run.entries import PlanEntry
from bench.run.plan import Plan, make_plan
from bench.shape import Shape
from bench.suite import Suite, TextSource

Say = Callable[[str], None]
RunPlan = Callable[[Plan], None]
"""Runs the open jobs of a plan, and shows how far they are."""


@dataclass(frozen=True)
class RehearsedCell:
    """How a cell ended: `what` is `compress` or its task, `made_up` its data that is not real."""

    label: str
    what: str
    status: str
    seconds: float
    message: str
    made_up: tuple[str, ...]


@dataclass(frozen=True)
class Rehearsal:
    """All cells in the order of the plan.

    `made_up` gives the reason for each file of data that is not real, `no_report` why there is no report, if so.
    `doubts` are what small amounts cannot show and the run itself may stop for.
    """

    cells: list[RehearsedCell]
    results: Path
    made_up: Mapping[str, str]
    no_report: str | None
    doubts: list[str]

    @property
    def failed(self) -> list[RehearsedCell]:
        return [cell for cell in self.cells if cell.status != "ok"]


def rehearse(
    suite: Suite,
    registry: Registry,
    run: RunPlan,
    *,
    only: Mapping[str, str],
    model_paths: Mapping[str, Path],
    plugins: Sequence[Path],
    offline: bool,
    command: Sequence[str],
    say: Say,
) -> Rehearsal:
    """Rehearse `suite`; of the models in `model_paths` only config.json and the kinds of files are looked at.

    Raises:
        UsageError, DataError: as `bench.run.plan.make_plan`, or the shape of a model is not known here.
    """
    names = [name for name in suite.models if only.get("model", name) == name] or suite.models
    sources = {name: source_of(name, model_paths, offline=offline) for name in names}
    texts = gather(refs_of(suite, registry), offline=offline, say=say)
    home = cache_dir() / "rehearsals" / suite.name
    with locked(home):
        shutil.rmtree(home, ignore_errors=True)
        stand_ins = [_stand_in(source, home / "models" / str(i)) for i, source in enumerate(sources.values())]
        doubts = [doubt for _, folder in stand_ins for doubt in _doubts(suite, registry, folder, texts.made_up)]
        with _cache_in(home / "cache"):
            texts.write()
            jobs: list[Job] = []
            for name, (scale, folder) in zip(sources, stand_ins, strict=True):
                plan = make_plan(
                    small_suite(suite, name, registry, scale, texts.made_up),
                    registry,
                    home / "results",
                    model_paths={name: folder},
                    plugins=plugins,
                    only=only,
                    offline=True,
                    command=command,
                    say=say,
                )
                plan.jobs = [job.model_copy(update={"is_rehearsal": True}) for job in plan.jobs]
                run(plan)
                jobs += plan.jobs
        cells = [cell for job in jobs for cell in _cells(job, Store(home / "results"), texts.made_up)]
        shutil.rmtree(home / "cache")
        shutil.rmtree(home / "models")
    return Rehearsal(cells, home / "results", texts.made_up, _why_no_report(home / "results", registry), doubts)


def _stand_in(source: Source, folder: Path) -> tuple[Scale, Path]:
    small = small_config(source.config)
    write_stand_in(folder, small, source.layout)
    return Scale(Shape.of(source.config), Shape.of(small)), folder


def _doubts(suite: Suite, registry: Registry, tokenizer: Path, made_up: Mapping[str, str]) -> Iterator[str]:
    """Calibration texts that seem too short for what the suite really asks of them, by the stand-in's tokens."""
    for plan_entry in (found for item in suite.methods for found in PlanEntry.all_of(item, registry, suite)):
        text, config = plan_entry.calibration, plan_entry.config
        if text is None or text.data in made_up or not isinstance(config.get("seq_len"), int):
            continue
        if shortfall(text, config | {"seq_len": TOKENS * config["seq_len"]}, tokenizer):
            yield (
                f"{plan_entry.entry.name} ({plan_entry.item.preset}): calibration: {text.name}: seems to be too short "
                f"for {config.get('calibration_samples')} windows of {config['seq_len']} tokens"
            )


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Leanboard's cache and data pack are in `folder` inside, and the network is not used."""
    settings = {
        "LEANBOARD_CACHE": str(folder),
        "LEANBOARD_DATA": "",
        "LEANBOARD_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _cells(job: Job, store: Store, made_up: Mapping[str, str]) -> Iterator[RehearsedCell]:
    ends = [(job.artifact.key, "compress", _texts_of(job.artifact))]
    ends += [(c.key, c.task, [ref for task in tasks_named(c.task) for ref in task.data()]) for c in job.cells]
    for key, what, refs in ends:
        record = store.load(key)
        yield RehearsedCell(
            job.artifact.label,
            what,
            record.status if record else "not run",
            record.provenance.seconds if record else 0.0,
            record.error.message if record and record.error else "",
            tuple(ref for ref in refs if ref in made_up),
        )


def _texts_of(cell: ArtifactCell) -> list[str]:
    return [text.data for text in (cell.calibration, cell.training) if isinstance(text, TextSource)]


def _why_no_report(results: Path, registry: Registry) -> str | None:
    try:
        problems = report(results, task_groups(), registry.methods).problems
    except LeanboardError as error:
        return str(error)
    except Exception as error:  # what a real run would end with after days must be said here, whatever it is
        return f"{type(error).__name__}: {error}"
    return str(problems[0]) if problems else None
