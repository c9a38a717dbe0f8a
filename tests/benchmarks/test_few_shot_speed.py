"""How much faster few-shot tasks are scored than by lm-eval's own backend at its best batch size: SmolLM2, float32.

The limit is what counting tokens says: those that lm-eval computes (answers of one token to one prompt cost it one
pass) over those that differ. It may be passed, as lm-eval also makes logits of every token. lm-eval shares nothing
between documents, so a few are timed, and their seconds scaled by the tokens of all: those of middling length, which
need less padding than all would.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from bench.catalogue import resolve
from bench.data.pack import Pack
from bench.data.sources import ensure
from bench.errors import LeanboardError
from bench.measure import bits, stock_tasks
from bench.measure.scorer import PackedLM, quiet
from bench.model.load import Loaded, load_folder
from bench.paths import offline
from bench.protocol import Protocol
from bench.registry import tasks_named
from tests.benchmarks.conftest import Limit
from tests.benchmarks.test_scorer_speed import choices

pytestmark = pytest.mark.perf

PROTOCOL = Protocol("5shot")
CHOICES, GOLD = ["mmlu", "csqa", "arc_challenge_olmes", "hellaswag_olmes"], ["gsm8k_gold"]
SUBJECTS = ["abstract_algebra", "business_ethics", "econometrics", "formal_logic"]
"""The first of each of lm-eval's four groups."""
ITEMS, STOCK_ITEMS = 100, 8
BATCHES = (4, 8, 16)


@dataclass(frozen=True)
class Asked:
    """Requests for the first items of a task, and a few of them, for lm-eval."""

    all: list[Instance]
    few: list[Instance]


@pytest.fixture(scope="module")
def asked() -> dict[str, Asked]:
    found = {}
    for name in CHOICES + GOLD:
        [task] = tasks_named(f"{name}@{'8shot' if name in GOLD else PROTOCOL}")
        missing = ensure(task.data(), offline=offline(), on_progress=lambda line: None)
        if missing:
            pytest.skip(str(missing))
        spec: Any = task.spec
        if name in GOLD:
            pairs = bits.read(Pack.default(), spec.texts["8shot"])[:ITEMS]
            parts = [[Instance("loglikelihood", {}, pair, 0, (name, i, 1)) for i, pair in enumerate(pairs)]]
        else:
            tasks = stock_tasks.build_tasks(spec, Pack.default(), PROTOCOL)
            used = SUBJECTS if name == "mmlu" else [""]
            parts = [stock_tasks.build_requests(tasks[part], ITEMS // len(used), PROTOCOL) for part in used]
        few = [request for part in parts for request in middling(part, STOCK_ITEMS // len(parts))]
        found[name] = Asked([request for part in parts for request in part], few)
    return found


def middling(requests: list[Instance], count: int) -> list[Instance]:
    """Those of `count` documents, of which as many are shorter as are longer."""
    lengths = {request.doc_id: len(request.args[0]) for request in requests}
    first = (len(lengths) - count) // 2
    taken = sorted(lengths, key=lambda number: lengths[number])[first : first + count]
    return [request for request in requests if request.doc_id in taken]


def sequences(lm: PackedLM, requests: Iterable[Instance]) -> set[tuple[int, ...]]:
    """What is read for each request; lm-eval, too, reads what several have in common once if it is the same."""
    return {tuple([*context, *answer][:-1]) for context, answer in (lm._encode_pair(*r.args) for r in requests)}


def read_by_stock(texts: set[tuple[int, ...]]) -> int:
    return sum(map(len, texts))


def different(texts: set[tuple[int, ...]]) -> int:
    """The nodes of the trie of all."""
    return len({hash(text[:end]) for text in texts for end in range(1, len(text) + 1)})


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    try:
        return load_folder(resolve("smollm2-135m", offline=offline()).path)
    except LeanboardError as error:
        pytest.skip(str(error))


def test_common_examples_pay(benchmark: Any, limits: list[Limit], loaded: Loaded, asked: dict[str, Asked]) -> None:
    benchmark.group, (model, tokenizer) = "few-shot", loaded
    seconds: dict[str, dict[int | str, float]] = defaultdict(dict)
    answers: dict[str, dict[int | str, list[tuple[float, bool]]]] = defaultdict(dict)

    def timed(name: str, engine: int | str, make: Callable[[], HFLM], requests: list[Instance]) -> None:
        start = time.perf_counter()
        with quiet():
            lm = make()
        answers[name][engine] = lm.loglikelihood(requests, disable_tqdm=True)
        seconds[name][engine] = time.perf_counter() - start

    def ours() -> HFLM:
        return PackedLM(model, tokenizer).following(lambda done, total: None, None, PROTOCOL)

    def once() -> None:
        for name, of in asked.items():
            timed(name, "packed", ours, of.all)
            for batch in BATCHES:
                timed(name, batch, partial(HFLM, pretrained=model, tokenizer=tokenizer, batch_size=batch), of.few)

    benchmark.pedantic(once, rounds=1)
    lm, tokens = PackedLM(model, tokenizer), {}
    for name, of in asked.items():
        texts = sequences(lm, of.all)
        share = read_by_stock(texts) / read_by_stock(sequences(lm, of.few))
        tokens[name] = read_by_stock(texts), different(texts)
        seconds[name]["stock"] = share * min(seconds[name][batch] for batch in BATCHES)
    benchmark.extra_info.update(seconds=dict(seconds), tokens=tokens)
    for what, names, least in (("few-shot", CHOICES, 15.0), ("gold answers", GOLD, 4.0)):
        ratio = sum(seconds[n]["stock"] for n in names) / sum(seconds[n]["packed"] for n in names)
        limit = sum(tokens[n][0] for n in names) / sum(tokens[n][1] for n in names)
        limits.append((f"{what}: times as fast as lm-eval's backend", ratio, least, "least"))
        limits.append((f"{what}: the same over the limit by tokens, {limit:.1f}", ratio / limit, 0.75, "least"))
    for name, of in asked.items():
        place = {id(request): i for i, request in enumerate(of.all)}
        mine = [answers[name]["packed"][place[id(request)]] for request in of.few]
        theirs = answers[name][BATCHES[0]]
        assert [logp for logp, _ in mine] == pytest.approx([logp for logp, _ in theirs], abs=1e-3, rel=0)
        assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
        assert choices(of.few, mine) == choices(of.few, theirs)
    assert all(value >= least for _, value, least, _ in limits), dict(seconds)
