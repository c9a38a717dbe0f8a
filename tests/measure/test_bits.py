"""Bits per byte of gold answers, against a direct computation with transformers and against lm-eval."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench.data.pack import Pack
from bench.errors import DataError, UsageError
from bench.measure import answers, bits, measure
from bench.measure.answers import Answers
from bench.measure.measurement import Measurement
from bench.measure.scorer import PackedLM
from bench.measure.subject import Subject
from bench.paths import cache_dir
from bench.record.kinds import kind_of
from bench.task import Task
from bench.task_gold import GoldTask
from tests.measure.test_scorer import ask
from tests.packs import ADJECTIVES, make_pack
from tests.tiny import make_model, make_tokenizer

SMOLLM = cache_dir() / "models" / "smollm2-135m"
SPEC = GoldTask(name="quiz", kind="gold", description="", texts={"5shot": "quiz/5shot", "0shot": "quiz/0shot"})
EXAMPLES = "Question: what is kept? Answer: what matters.\n\n"


def row(i: int, context: str, gold: str, **more: str) -> dict[str, Any]:
    return {"item": f"q{i}", "context": context, "choices": [gold], "gold": 0, **more}


ROWS = [
    row(i, f"{EXAMPLES}Question: what is {word} and number {i}?\nAnswer:", f" the {word} döner №{i}" + " x" * (i % 3))
    for i, word in enumerate(ADJECTIVES)
]
PARTS = [row(i, f"{i}:", f" {word}", part="ab"[i % 2]) for i, word in enumerate(ADJECTIVES)]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"), {"quiz/5shot": ROWS, "quiz/0shot": PARTS})])


def nats_by_hand(subject: Subject, context: str, answer: str) -> float:
    """Stock transformers on one text; the tiny tokenizer's pieces end at spaces, so that the context's ids begin it."""
    before = len(subject.tokenizer(context)["input_ids"])
    ids = torch.tensor(subject.tokenizer(context + answer)["input_ids"])
    with torch.no_grad():
        table = subject.model(ids[None]).logits[0].double().log_softmax(dim=-1)
    return -sum(float(table[i - 1, ids[i]]) for i in range(before, len(ids)))


def sums(result: Measurement) -> tuple[list[float], list[int]]:
    found = result.evidence.sums["bpb"]
    return found.nll, found.targets


def test_value_is_bits_over_bytes_of_a_direct_computation(tiny_gqa: Path, pack: Pack) -> None:
    subject = Subject(tiny_gqa)
    result = measure(Task(SPEC, "5shot", 7), subject, pack)
    expected = [nats_by_hand(subject, row["context"], row["choices"][0]) for row in ROWS[:7]]
    sizes = [len(row["choices"][0].encode("utf-8")) for row in ROWS[:7]]
    [metric] = result.metrics
    assert metric.id == "quiz.bpb@5shot/limit7"
    assert metric.value == pytest.approx(sum(expected) / math.log(2) / sum(sizes), rel=1e-5)
    assert metric.n == sum(sizes)
    nats, targets = sums(result)
    assert nats == pytest.approx(expected, rel=1e-5)
    assert targets == sizes
    assert kind_of(metric.id).value(sum(nats) / sum(targets)) == pytest.approx(metric.value, rel=1e-12)


def test_standard_error_is_about_that_of_leaving_out_one_item_each(tiny_gqa: Path, pack: Pack) -> None:
    result = measure(Task(SPEC, "5shot"), Subject(tiny_gqa), pack)
    nats, sizes = sums(result)
    n = len(nats)
    without = [(sum(nats) - nats[i]) / (sum(sizes) - sizes[i]) / math.log(2) for i in range(n)]
    mean = sum(without) / n
    jackknife = math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in without))
    assert result.metrics[0].stderr == pytest.approx(jackknife, rel=0.1)


def test_shuffled_gives_each_answer_the_context_of_another_item_of_its_part(pack: Pack, tiny_gqa: Path) -> None:
    plain, shuffled = (bits.read(pack, "quiz/0shot", is_shuffled=flag) for flag in (False, True))
    assert [answer for _, answer in shuffled] == [answer for _, answer in plain]
    moved = [int(context[:-1]) for context, _ in shuffled]
    assert sorted(moved) == list(range(12))
    assert all(i != other and i % 2 == other % 2 for i, other in enumerate(moved))
    result = measure(Task(SPEC, "5shot+shuffled", 2), Subject(tiny_gqa), pack)
    subject = Subject(tiny_gqa)
    expected = [nats_by_hand(subject, ROWS[i + 6]["context"], ROWS[i]["choices"][0]) for i in (0, 1)]
    assert sums(result)[0] == pytest.approx(expected, rel=1e-5)
    assert result.metrics[0].id == "quiz.bpb@5shot+shuffled/limit2"


def test_shuffled_gives_no_context_about_the_same_text(tmp_path: Path) -> None:
    rows = [row(i, f"{i}:", " yes", about=text) for i, text in enumerate("abcabc")]
    moved = bits.read(Pack([make_pack(tmp_path, {"quiz/5shot": rows})]), "quiz/5shot", is_shuffled=True)
    assert [context for context, _ in moved] == ["4:", "5:", "0:", "1:", "2:", "3:"]


def test_of_several_choices_the_gold_one_is_scored(tmp_path: Path) -> None:
    rows = [row(0, "a:", " wrong") | {"choices": [" wrong", " right"], "gold": 1}]
    assert bits.read(Pack([make_pack(tmp_path, {"quiz/5shot": rows})]), "quiz/5shot") == [("a:", " right")]


def test_contexts_that_the_model_does_not_take_are_cut_and_counted(tmp_path: Path, tiny_gqa: Path) -> None:
    rows = [row(0, "short:", " yes"), row(1, "word" + " word" * 599, " yes")]
    subject = Subject(tiny_gqa)
    result = measure(Task(SPEC, "5shot"), subject, Pack([make_pack(tmp_path, {"quiz/5shot": rows})]))
    assert result.evidence.notes == ["the context of 1 of 2 items was cut at its beginning to fit the model"]
    stock = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1)
    theirs = stock.loglikelihood(ask(*((row["context"], " yes") for row in rows)), disable_tqdm=True)
    assert sums(result)[0] == pytest.approx([-logp for logp, _ in theirs], abs=1e-4)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with tokens that go on over the end of a line or in the middle of a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["def keep(what):\n    return what\n"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", model_max_length=512)


def test_exactly_the_bytes_of_an_answer_are_scored_where_a_token_holds_parts_of_both_texts(tmp_path: Path) -> None:
    line = "def keep(what):\n"
    texts = [(line, "    return what"), ("def keep(wha", "t):"), (line, "what"), ("", "what")]
    tokenizer, model = merging_tokenizer(), make_model()
    expected = []
    for context, answer in texts:
        start = tokenizer.encode(context) or [tokenizer.bos_token_id]
        target = tokenizer.encode(answer)
        together = tokenizer.encode(context + answer)
        assert (together == start + target) == (answer == "what" and context != "")
        with torch.no_grad():
            table = model(torch.tensor([start + target])).logits[0].double().log_softmax(dim=-1)
        expected.append(-sum(float(table[len(start) + i - 1, token]) for i, token in enumerate(target)))
    rows = [row(i, *pair) for i, pair in enumerate(texts)]
    pack = Pack([make_pack(tmp_path, {"quiz/5shot": rows})])
    result = measure(Task(SPEC, "5shot"), Subject(tmp_path, loaded=(model, tokenizer)), pack)
    assert sums(result)[0] == pytest.approx(expected, rel=1e-5)
    assert sums(result)[1] == [15, 3, 4, 4]
    assert result.evidence.notes == [
        "2 of 4 items: context and answer were encoded apart, as a token of the whole text holds parts of both"
    ]


def test_a_tokenizer_without_bos_and_eos_scores_no_answer_after_an_empty_context(tmp_path: Path) -> None:
    plain = make_tokenizer()
    plain.bos_token = plain.eos_token = None
    pack = Pack([make_pack(tmp_path, {"quiz/5shot": [row(0, "", "x")]})])
    with pytest.raises(UsageError, match="an empty prompt is replaced by BOS or EOS, and the tokenizer has neither"):
        measure(Task(SPEC, "5shot"), Subject(tmp_path, loaded=(make_model(), plain)), pack)


@pytest.mark.parametrize("column", [{"part": ("x", "y")}, {"about": ("x", "x")}])
def test_an_item_without_another_one_cannot_be_shuffled(
    column: dict[str, tuple[str, str]], tmp_path: Path, tiny_gqa: Path
) -> None:
    [(name, values)] = column.items()
    rows = [row(i, "a", " b", **{name: value}) for i, value in enumerate(values)]
    with pytest.raises(DataError, match=r"quiz/5shot\.parquet: \+shuffled needs two items .*, about two texts"):
        measure(Task(SPEC, "5shot+shuffled"), Subject(tiny_gqa), Pack([make_pack(tmp_path, {"quiz/5shot": rows})]))


def test_finished_answers_are_not_computed_again(
    tmp_path: Path, pack: Pack, tiny_gqa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)
    kept = Answers(tmp_path / "answers", "0123456789abcdef")
    first = measure(Task(SPEC, "5shot"), Subject(tiny_gqa), pack, answers=kept)
    monkeypatch.setattr(PackedLM, "_scores", None)
    assert measure(Task(SPEC, "5shot"), Subject(tiny_gqa), pack, answers=kept) == first


def test_protocols_are_the_files_with_flags() -> None:
    assert [SPEC.protocol(given) for given in (None, "0shot", "5shot+shuffled+nobos")] == [
        "5shot",
        "0shot",
        "5shot+nobos+shuffled",
    ]
    with pytest.raises(UsageError, match="task quiz: protocol '3shot' is not 5shot or 0shot"):
        SPEC.protocol("3shot")
    with pytest.raises(UsageError, match="unknown flag 'notice'"):
        SPEC.protocol("5shot+notice")


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM.is_dir(), reason="smollm2-135m is not in the cache")
def test_gold_answers_of_a_real_model_are_scored_as_lm_eval_scores_them(pack: Pack) -> None:
    subject = Subject(SMOLLM)
    nats, _ = sums(measure(Task(SPEC, "5shot", 5), subject, pack))
    stock = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1)
    theirs = stock.loglikelihood(ask(*bits.read(pack, "quiz/5shot")[:5]), disable_tqdm=True)
    assert nats == pytest.approx([-logp for logp, _ in theirs], abs=1e-3)
