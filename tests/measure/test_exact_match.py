"""Answers in the model's own words, against lm-eval's own evaluation of the same tasks."""

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from bench.data.pack import Pack
from bench.errors import UsageError
from bench.measure import measure
from bench.measure.chat import NO_SYSTEM
from bench.measure.exact_match import normalised
from bench.measure.greedy import Answerer
from bench.measure.subject import Subject
from bench.registry import load_tasks, tasks_named
from bench.task import Task, spec_of
from bench.task_exact_match import OpenTask
from tests.measure.test_accuracy import stock_task
from tests.measure.test_greedy import lively
from tests.packs import ADJECTIVES, make_pack, tables
from tests.tiny import make_model, make_tokenizer

ROWS: dict[str, list[dict[str, Any]]] = {
    "arc_easy/test": tables(2)["arc_easy/test"],
    "ifeval/train": [{"key": 1, "prompt": "Say no.", "instruction_id_list": ["a:b"], "kwargs": [{"x": "y"}]}],
    "gsm8k/test": [{"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"} for i in range(8)],
    "nq_open/validation": [{"question": f"what is {word}", "answer": [word, f"The {word}"]} for word in ADJECTIVES[:8]],
    "trivia_qa/validation": [
        {"question": f"What is {word}", "answer": {"aliases": [word.title(), f"{word} dog"], "value": word}}
        for word in ADJECTIVES[:8]
    ],
    "arc_easy_olmes/5shot": [
        {"item": f"q{i}", "context": f"What is {word}?\nA:", "choices": [" no", f" The {word}-dog."], "gold": i % 2}
        for i, word in enumerate(ADJECTIVES[:8])
    ],
}
SAID = {
    "gsm8k": ["#### 0", "2", " so 4 it is\n#### 4.", "It is 6", "#### 1,008", "$10", "12 or 13", ""],
    "nq_open": ["red", " the blue", "an old", "NEW", "warm!", "", "dry dog", "The wet"],
    "triviaqa": ["Red", " blue dog", "old", "the new", "warm?", "", "Dry Dog", "wet dogs"],
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"), ROWS)])


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """With room for 270 tokens, of which lm-eval keeps 256 for the answer."""
    folder = tmp_path_factory.mktemp("lively")
    lively(make_model(max_position_embeddings=270)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Subject(folder)


def named(text: str) -> Task:
    [task] = tasks_named(text)
    return task


def saying(monkeypatch: pytest.MonkeyPatch, answers: Sequence[str]) -> None:
    """Let every model give these answers, here and in lm-eval."""
    monkeypatch.setattr(Answerer, "answers", lambda self, prompts, *_: list(answers[: len(prompts)]))
    monkeypatch.setattr(HFLM, "generate_until", lambda self, requests, **_: list(answers[: len(requests)]))


def by_lm_eval(name: str, ref: str, subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's samples in order, by the name of the filter."""
    found = simple_evaluate(
        model=HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1),
        tasks=[stock_task(name, ROWS[ref])],
        num_fewshot=0,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    return {filter_: [s for s in samples if s["filter"] == filter_] for filter_ in {s["filter"] for s in samples}}


def bits(samples: Sequence[dict[str, Any]]) -> str:
    return "".join(str(int(sample["exact_match"])) for sample in samples)


@pytest.mark.parametrize("name", ["gsm8k", "nq_open", "triviaqa"])
def test_what_is_right_is_what_lm_eval_takes_as_right(
    name: str, pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, SAID[name])
    task = named(f"{name}@0shot")
    found = measure(task, subject, pack).evidence
    theirs = by_lm_eval(name, task.data()[0], subject)
    first = {"gsm8k": "strict-match"}.get(name, "remove_whitespace")
    assert found.items["exact_match"] == bits(theirs[first])
    assert {"0", "1"} == set(found.items["exact_match"])
    if name == "gsm8k":
        assert found.items["exact_match_flexible_extract"] == bits(theirs["flexible-extract"])
        assert found.items["exact_match_flexible_extract"] != found.items["exact_match"]
        assert found.texts["gold"][3] == "It is 6.\n#### 6"
    assert found.texts["answer"] == [text.strip() for text in SAID[name]]


def test_prompts_that_are_too_long_and_their_answers_are_lm_evals(pack: Pack, subject: Subject) -> None:
    task = named("nq_open@0shot")
    longest = max(len(subject.tokenizer.encode(row["question"])) for row in ROWS["nq_open/validation"])
    assert longest + 20 > 270 - 256
    ours = measure(task, subject, pack).evidence.texts["answer"]
    [theirs] = by_lm_eval("nq_open", "nq_open/validation", subject).values()
    whole = [sample["resps"][0][0].strip() for sample in theirs]
    assert ours == whole
    assert len(set(ours)) > 1


def test_a_description_that_the_chat_template_does_not_take_is_noted(
    pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, SAID["nq_open"])
    task, chat = named("nq_open@0shot+chat/limit2"), "{% for m in messages %}{{ m.content }}{% endfor %}"
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    for template, notes in ((chat, []), (refuses + chat, [NO_SYSTEM])):
        monkeypatch.setattr(subject.tokenizer, "chat_template", template)
        assert measure(task, subject, pack).evidence.notes == notes
    monkeypatch.setattr(subject.tokenizer, "chat_template", "{{ raise_exception('no') }}")
    with pytest.raises(UsageError, match=r"^the tokenizer's chat template fails \(no\)$"):
        measure(task, subject, pack)


def test_a_long_answer_is_kept_without_its_middle(
    pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, [f" so {'and ' * 40}#### 0", *SAID["gsm8k"][1:]])
    found = measure(named("gsm8k@0shot/limit1"), subject, pack).evidence
    assert found.items["exact_match"] == "1"
    [kept] = found.texts["answer"]
    assert len(kept) <= 120
    assert kept.startswith("so and and")
    assert kept.endswith("and #### 0")


def test_an_open_answer_is_right_where_it_says_the_right_choice(
    pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, [" No", "bluedog", " no.", "the  NewDog!", "yes", "the cold dog", "no", ""])
    result = measure(named("arc_easy_open/limit7"), subject, pack)
    assert [metric.id for metric in result.metrics] == ["arc_easy_open.exact_match@5shot/limit7"]
    assert result.evidence.items == {"exact_match": "1111001"}
    assert result.evidence.texts["gold"][:2] == ["no", "The blue-dog."]


def test_open_questions_are_those_of_the_task_with_choices(pack: Pack, subject: Subject) -> None:
    """Item by item: the same number of bits, the same data."""
    task = named("arc_easy_open/limit5")
    assert isinstance(task.spec, OpenTask)
    choice, _, metric = task.spec.choice.partition(".")
    partner = named(f"{choice}@{task.suffix}")
    assert partner.data() == task.data()
    seen: list[list[list[int]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answerer, "answers", lambda self, prompts, *_: seen.append(prompts) or [""] * len(prompts))
        ours = measure(task, subject, pack).evidence.items["exact_match"]
    theirs = measure(partner, subject, pack).evidence.items[metric]
    assert len(ours) == len(theirs) == 5
    contexts = [row["context"] for row in ROWS["arc_easy_olmes/5shot"][:5]]
    assert seen == [[subject.tokenizer.encode(text) for text in contexts]]


def test_normalised_as_for_squad() -> None:
    assert normalised(" The quick, brown  FOX's an apple.") == "quick brown foxs apple"
    assert normalised("a theory") == "theory"


@pytest.mark.parametrize("name", ["arc_easy_open", "arc_challenge_open", "sciq_open"])
def test_the_task_with_choices_is_there(name: str) -> None:
    spec: Any = load_tasks()[name]
    task, _, metric = spec.choice.partition(".")
    partner: Any = load_tasks()[task]
    assert metric in partner.metrics
    assert partner.texts == spec.texts


def test_what_cannot_be_answered_greedily_is_one_sentence(
    pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, SAID["gsm8k"])
    content: dict[str, Any] = {"name": "mine", "kind": "exact_match", "description": "", "metrics": ["exact_match"]}
    content |= {"headline": "exact_match", "splits": {"test": "gsm8k/test"}}

    def of(**fields: Any) -> Task:
        return Task(spec_of(content | fields, "mine.yaml"), "0shot")  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="task mine: lm-eval has it answered with do_sample True; answers are greedy"):
        measure(of(lm_eval="gsm8k_cot_self_consistency"), subject, pack)
    with pytest.raises(UsageError, match="task mine: lm_eval: lm-eval's task is of the type multiple_choice, not gen"):
        measure(of(lm_eval="arc_easy", splits={"test": "arc_easy/test"}), subject, pack)
    with pytest.raises(UsageError, match="mine: metrics: lm-eval gives no prompt_level_strict_acc; it gives exact_m"):
        measure(of(lm_eval="gsm8k", metrics=["prompt_level_strict_acc"]), subject, pack)
    with pytest.raises(UsageError, match=r"mine\.yaml: choice: 'arc_easy\.mean' is not <task>\.<metric> of a share"):
        spec_of(content | {"kind": "open_answer", "texts": {"5shot": "a/b"}, "choice": "arc_easy.mean"}, "mine.yaml")


def test_a_package_that_lm_evals_task_needs_is_named(
    pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.ifeval")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("nltk.download", lambda *_: pytest.fail("nothing is downloaded"))
    with pytest.raises(UsageError, match=r"^task ifeval: lm-eval's 'ifeval' needs another package \(.*langdetect"):
        measure(named("ifeval"), subject, pack)
