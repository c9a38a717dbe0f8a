"""The model card of an exported checkpoint: what it is, its sizes and scores, how to load it. No torch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from string import Template

from bench.catalogue import CATALOGUE
from bench.errors import LeanboardError
from bench.record.schema import ArtifactRecord, Metric
from bench.registry import load_registry
from bench.report.cell import cell_of
from bench.report.formats import writer
from bench.serve.find import Found

HERE = Path(__file__).parent
CARD = HERE / "card.md"
LOADING = {"hf": HERE / "loading.md", "gguf": HERE / "loading_gguf.md"}


def write_card(found: Found, folder: Path, form: str, dtype: str, notes: list[str]) -> None:
    """Write README.md into `folder`, which holds the exported checkpoint."""
    record = found.record
    text = Template(CARD.read_text(encoding="utf-8")).substitute(
        library="transformers" if form == "hf" else "gguf",
        label=found.label,
        model=_model(record),
        licence=CATALOGUE[record.model].licence if record.model in CATALOGUE else "that of the model it was made from",
        method=_method(record.method),
        settings=json.dumps(record.ingredients["config"], sort_keys=True),
        recovery=_recovery(record.ingredients.get("recovery")),
        target=record.target,
        seed=record.seed,
        dtype=dtype,
        key=record.key,
        command=shlex.join(record.provenance.command),
        removed=_removed(record.achieved),
        widths=_widths(record.widths),
        scores=_scores(found),
        loading=_loading(folder, form, dtype),
        notes="".join(f"* {note}\n" for note in notes) or "* nothing\n",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _model(record: ArtifactRecord) -> str:
    commit = record.provenance.model_revision
    return f"{record.model} (commit {commit})" if commit else record.model


def _method(name: str) -> str:
    try:
        traits = load_registry([]).method(name).cls.traits
    except LeanboardError:
        return f"`{name}` (a plug-in)"
    return f"`{name}`, {traits.title}" + (f" ({traits.paper})" if traits.paper else "")


def _recovery(recovery: dict[str, object] | None) -> str:
    return f"`{json.dumps(recovery, sort_keys=True)}`" if recovery else "none"


def _removed(achieved: dict[str, float]) -> str:
    parts = [f"{100 * value:.2f} % of {basis}" for basis, value in sorted(achieved.items()) if value]
    return ", ".join(parts) or "nothing"


def _widths(widths: list[tuple[int, int, int]]) -> str:
    lines = ["| layer | heads | key/value heads | MLP channels |", "| --: | --: | --: | --: |"]
    return "\n".join([*lines, *(f"| {i} | {h} | {kv} | {c} |" for i, (h, kv, c) in enumerate(widths))])


def _scores(found: Found) -> str:
    metrics = sorted((m for record in found.measures for m in record.metrics), key=lambda metric: metric.id)
    if not metrics:
        return "Nothing has been measured on it yet."
    lines = ["| metric, with its protocol | value | n |", "| --- | --: | --: |"]
    return "\n".join([*lines, *(f"| `{metric.id}` | {_value(metric)} | {metric.n} |" for metric in metrics)])


def _value(metric: Metric) -> str:
    write, suffix = writer(metric.value, metric.unit)
    shown = {"fraction": " %", "ms": " ms", "s": " s", "tokens/s": " tokens/s"}.get(metric.unit, suffix)
    off = cell_of([metric]).uncertainty
    if off is None:
        return f"{write(metric.value)}{shown}"
    if off.half is None:
        return f"{write(metric.value)}{shown} ({write(off.low)}–{write(off.high)})"
    return f"{write(metric.value)} ± {write(off.half)}{shown}"


def _loading(folder: Path, form: str, dtype: str) -> str:
    own = _own_code(folder) if form == "hf" else None
    return Template(LOADING[form].read_text(encoding="utf-8")).substitute(
        dtype=dtype,
        code=", trust_remote_code=True" if own else "",
        code_flag=",trust_remote_code=True" if own else "",
        code_note=f"The model's code lies with the weights in `{own}`; with Leanboard installed, "
        "`import bench.model` does in its place.\n\n"
        if own
        else "",
        plugin="With Leanboard installed in its environment (`pip install 'leanboard[vllm]'`), vLLM finds the model's "
        "classes by itself:"
        if own
        else "As it is:",
        adapter=(HERE / "loading_adapter.md").read_text(encoding="utf-8") if (folder / "adapter").is_dir() else "",
    )


def _own_code(folder: Path) -> str | None:
    """The file of model code that config.json names; None where a stock class loads the weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named: str | None = config.get("auto_map", {}).get("AutoModelForCausalLM")
    return f"{named.partition('.')[0]}.py" if named else None
