"""What the verbs that only read show: plain data first, so that `--json` and the tables show the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import unknown
from bench.registry import MethodEntry, Registry, load_tasks
from bench.task_group import TaskGroup
from bench.task_kind import TaskSpec

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from bench.run.cells import Job
    from bench.run.estimate import Estimate
    from bench.run.plan import Plan

Rows = list[dict[str, Any]]


def method_list(registry: Registry) -> Rows:
    """Every method found, and the plug-ins that could not be loaded with the reason."""
    rows = [
        {
            "method": entry.name,
            "version": entry.cls.version,
            "track": entry.cls.traits.track,
            "needs": ", ".join(sorted(entry.cls.traits.needs)) or "nothing",
            "presets": ", ".join(entry.presets()),
            "title": entry.cls.traits.title,
            "origin": entry.origin,
        }
        for entry in registry.methods.values()
    ]
    broken = [
        {"method": name, "version": "", "track": "broken", "needs": "", "presets": "", "title": reason, "origin": ""}
        for name, reason in registry.broken.items()
    ]
    return rows + broken


def method_details(entry: MethodEntry) -> dict[str, Any]:
    """All that is known of one method."""
    traits = entry.cls.traits
    config = [
        {"field": name, "default": str(info.get_default(call_default_factory=True)), "description": info.description}
        for name, info in entry.cls.Config.model_fields.items()
    ]
    presets = {name: preset.model_dump(mode="json") for name, preset in entry.presets().items()}
    return {
        "method": entry.name,
        "title": traits.title,
        "version": entry.cls.version,
        "track": traits.track,
        "needs": sorted(traits.needs),
        "changes": sorted(traits.changes),
        "deterministic": traits.deterministic,
        "paper": traits.paper,
        "origin": entry.origin,
        "config": config,
        "presets": presets,
        "card": entry.card() or "",
    }


def model_list() -> Rows:
    """The catalogue, and whether the weights are on this machine."""
    from bench.catalogue import CATALOGUE, is_here
    from bench.shape import Shape

    return [
        {
            "model": entry.id,
            "weights": "here" if is_here(entry) else "not fetched",
            "description": entry.description,
            "licence": entry.licence,
            "gate": entry.gate,
            "parameters (B)": round(Shape.of(entry.config).params() / 1e9, 3),
        }
        for entry in CATALOGUE.values()
    ]


def task_list() -> Rows:
    """Every task and group, kind by kind: its usual protocols, and whether its data is on this machine."""
    return [
        {
            "task": spec.name,
            "kind": spec.kind,
            "protocols": "" if isinstance(spec, TaskGroup) else ", ".join(map(spec.protocol, spec.usual())),
            "here": _is_here(spec),
            "description": spec.description,
        }
        for spec in sorted(load_tasks().values(), key=lambda spec: (spec.kind, spec.name))
    ]


def task_details(name: str) -> dict[str, Any]:
    """A task or group with all that is set of it, and the flags that its protocol may have.

    Raises:
        UsageError: there is none of that name.
    """
    known = load_tasks()
    if name not in known:
        raise unknown("task", name, known)
    spec = known[name]
    flags = [] if isinstance(spec, TaskGroup) else [f"+{flag}" for flag in spec.flags]
    says = spec.model_dump(mode="json", exclude_none=True)
    return {**says, "flags": flags, "data": spec.data(), "here": _is_here(spec)}


def _is_here(spec: TaskSpec | TaskGroup) -> str:
    """Whether the data is here that a task reads under its usual protocol."""
    from bench.data.pack import Pack

    pack = Pack.default()
    refs = [] if isinstance(spec, TaskGroup) else spec.data(spec.protocol(None))
    return "" if not refs else "yes" if all(pack.has(ref) for ref in refs) else "not fetched"


def plan_cells(plan: Plan) -> Rows:
    """Every cell of a plan: its key, whether it is finished, and what it takes by `bench.run.estimate`.

    Memory is that of the cell's stage; disk is shown in the row of the checkpoint. `time by` is `record` where the same
    was done here before, `count` where it is counted, roughly.
    """
    rows = []
    for job in plan.jobs:
        takes = plan.estimates[job.artifact.key]
        for key, what in [(job.artifact.key, "compress"), *((cell.key, cell.task) for cell in job.cells)]:
            todo = "does not fit" if key in plan.misfits else "to do"
            seconds, by = takes.time_of(key)
            rows.append(
                {
                    **_named(job),
                    "what": what,
                    "key": "" if key in plan.keyless else key,
                    "status": "finished" if key in plan.finished else todo,
                    "memory (GB)": round(takes.needs[key] / 1e9, 2),
                    "disk (GB)": round(takes.disk / 1e9, 3) if key == job.artifact.key else "",
                    "time (s)": "–" if seconds is None else round(seconds, 1),
                    "time by": by,
                    "note": plan.misfits.get(key, ""),
                }
            )
    return rows


def plan_rows(plan: Plan) -> Rows:
    """Every checkpoint of a plan: how many of its cells are to do, and what those take; the last row is all together.

    Memory is the most at a time, and so is that of all; disk is that of the checkpoint. Hours by `count` are rough.
    """
    rows: Rows = []
    hours, sources = 0.0, set[str]()
    for job in plan.jobs:
        keys = [job.artifact.key, *(cell.key for cell in job.cells)]
        todo = [key for key in keys if key not in plan.finished and key not in plan.misfits]
        out = [key for key in keys if key in plan.misfits]
        takes = plan.estimates[job.artifact.key]
        times = [takes.time_of(key) for key in todo]
        by = {source for seconds, source in times if source and seconds}
        spent = sum(seconds or 0.0 for seconds, _ in times) / 3600
        hours, sources = hours + spent, sources | by
        rows.append(
            {
                **_named(job),
                "to do": f"{len(todo)} of {len(keys)}",
                "memory (GB)": round(max((takes.needs[key] for key in todo or keys), default=0) / 1e9, 1),
                "disk (GB)": round(takes.disk / 1e9, 2),
                "hours": round(spent, 2),
                "hours by": " and ".join(sorted(by)),
                "note": f"{len(out)} cells do not fit: {plan.misfits[out[0]]}" if out else _spread(job, takes),
            }
        )
    total = dict.fromkeys(rows[0], "") | {
        "model": "all",
        "to do": f"{sum(int(row['to do'].split()[0]) for row in rows)} of {len(plan.all_keys())}",
        "memory (GB)": max(row["memory (GB)"] for row in rows),
        "disk (GB)": round(sum(row["disk (GB)"] for row in rows), 2),
        "hours": round(hours, 2),
        "hours by": " and ".join(sorted(sources)),
    }
    return [*rows, total]


def _spread(job: Job, takes: Estimate) -> str:
    return "spread over GPUs and the CPU's memory, slower" if takes.is_spread(job.artifact.device) else ""


def _named(job: Job) -> dict[str, Any]:
    cell = job.artifact
    return {
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "recovery": cell.recovery_name,
        "target": cell.target_name,
        **({"calibration": cell.calibration_name} if cell.names_text else {}),
        "seed": cell.seed,
    }


def status_lines(notices: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notices of runs as lines of text."""
    lines = []
    for run in notices:
        state = "running" if run["alive"] else "ended unexpectedly: run the same command again to continue"
        lines.append(f"{' '.join(run['command'])} (process {run['pid']}, since {run['started']}): {state}")
        counts = f"{run['cached'] + run['done']}/{run['cells']} cells, {run['cached']} cached, {run['failed']} failed"
        lines.append(f"  {counts}" + (f", about {run['seconds_left']} s left" if run["alive"] else ""))
        word = "in flight" if run["alive"] else "lost"
        lines += [f"  {word}: {cell['what']} ({cell['seconds']} s)" for cell in run["at_work"]]
        lines += [f"  failed: {failure}" for failure in run["failures"]]
    return lines


def all_data() -> list[str]:
    """Every file of the data pack that some task or suite reads."""
    from bench.paths import SUITES
    from bench.suite import load_suite

    refs = {ref for spec in load_tasks().values() for ref in spec.data()}
    for file in SUITES.glob("*.yaml"):
        suite = load_suite(str(file))
        refs |= {source.data for source in suite.all_texts()}
    return sorted(refs)


def data_list() -> Rows:
    """Every text by name: those of the local packs, and those that a source has."""
    from bench.data.licences import licence_of
    from bench.data.pack import Pack
    from bench.data.sources import SOURCES

    here = {file.ref: file for file in Pack.default().files()}
    return [
        {
            "name": ref,
            "here": "yes" if ref in here else "not fetched",
            "rows": here[ref].entry.rows if ref in here else "",
            "columns": ", ".join(here[ref].entry.columns if ref in here else SOURCES[ref].columns),
            "licence": licence_of(ref),
        }
        for ref in sorted({*SOURCES, *here})
    ]


def renderable(content: Any) -> RenderableType:
    """`content` for a terminal: rows as a table, a mapping as its fields with the card last."""
    from rich.console import Group
    from rich.text import Text

    if isinstance(content, Mapping):
        parts: list[RenderableType] = []
        for name, value in content.items():
            if name == "card":
                parts.append(_markdown(value))
            elif isinstance(value, list) and value and isinstance(value[0], Mapping):
                parts += [Text(f"{name}:"), _table(value)]
            elif isinstance(value, Mapping) and all(isinstance(inner, Mapping) for inner in value.values()):
                parts += [Text(f"{name}:"), _table([{"": key, **inner} for key, inner in value.items()])]
            else:
                parts.append(Text(f"{name}: {_plain(value)}"))
        return Group(*parts)
    return _table(content) if content else Text("nothing to show")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row.values()))
    return table


def _plain(value: Any) -> str:
    """`value` without brackets and quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "none" if value is None else str(value)


def _markdown(text: str) -> RenderableType:
    from rich.markdown import Markdown

    return Markdown(text)
