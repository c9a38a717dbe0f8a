"""Greedy answers are those of lm-eval's own backend with one prompt at a time, whatever stands beside a prompt."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from bench.errors import LeanboardError
from bench.measure import answers, greedy
from bench.measure.answers import Answers
from bench.measure.greedy import Answerer, Ends
from tests.packs import ADJECTIVES
from tests.tiny import make_model, make_tokenizer

PROMPTS = [f"Question: what is {' and '.join(ADJECTIVES[i : i + 1 + i % 5])}?\nAnswer:" for i in range(7)]


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    fields: dict[str, Any] = {"sliding_window": 12} if request.param == "mistral" else {}
    return lively(make_model(family=request.param, kv_heads=2, **fields))


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose answers are not all alike; one token of twelve ends a sequence."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    model.generation_config.eos_token_id = list(range(2, 300, 12))
    return model


def ours(model: PreTrainedModel, ends: Ends, budget: int = 400) -> list[str]:
    tokenizer = make_tokenizer()
    ids = [tokenizer(text)["input_ids"] for text in PROMPTS]
    return Answerer(model, tokenizer, ends, budget).answers(ids, lambda done, total: None)


def stock(model: PreTrainedModel, ends: Ends) -> list[str]:
    settings = {"until": list(ends.until), "max_gen_toks": ends.most, "do_sample": False}
    requests = [Instance("generate_until", {}, (text, dict(settings)), 0) for text in PROMPTS]
    lm = HFLM(pretrained=model, tokenizer=make_tokenizer(), batch_size=1)
    return lm.generate_until(requests, disable_tqdm=True)


@pytest.mark.parametrize("until", [(), ("g", "aU", "\x1a")], ids=["no text", "texts"])
def test_they_are_lm_evals(model: PreTrainedModel, until: tuple[str, ...]) -> None:
    ends = Ends((*until, "</s>"), 16)
    found = ours(model, ends)
    assert found == stock(model, ends)
    lengths = {len(make_tokenizer().encode(text)) for text in found}
    assert len(lengths) > 3  # rows leave their batch one after another


def test_what_stands_beside_a_prompt_changes_nothing(model: PreTrainedModel) -> None:
    ends = Ends(("\n", "."), 16)
    assert ours(model, ends, budget=10_000) == ours(model, ends, budget=1)


def test_what_prompts_begin_with_is_read_once(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """But by a model with a window, which would count the padding behind it."""
    tokenizer, seen = make_tokenizer(), [0]
    examples = [" ".join(ADJECTIVES[::step] * 2) + ". " for step in (1, -1)]
    ids = [tokenizer(examples[i % 2] + text)["input_ids"] for i, text in enumerate([*PROMPTS, *PROMPTS[:3]])]
    answerer = Answerer(model, tokenizer, Ends(("g", "aU"), 16), 900)

    def read(_: object, args: tuple[torch.Tensor, ...], given: dict[str, Any]) -> None:
        seen[0] += (args[0] if args else given["input_ids"]).numel()

    def answered() -> tuple[list[str], int]:
        seen[0] = 0
        with model.register_forward_pre_hook(read, with_kwargs=True):
            return answerer.answers(ids, lambda done, total: None), seen[0]

    found, tokens = answered()
    monkeypatch.setattr(greedy, "beginnings", lambda texts, most: [])
    whole, every = answered()
    assert found == whole
    assert len(set(found)) > 3
    assert tokens == every if model.config.model_type == "mistral" else tokens < 0.7 * every


def test_texts_to_stop_at_are_cut_off_wherever_they_begin() -> None:
    assert Ends(("\n", "Q:"), 9).cut(" a b Q: c\nd") == " a b "
    assert Ends(("\n", "Q:"), 9).cut(" a\n b Q: c") == " a"
    assert Ends((), 9).cut("a\nb") == "a\nb"


def test_logits_that_are_not_finite_are_refused() -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LeanboardError, match="the model's logits are not finite"):
        ours(broken, Ends((), 3))


class Killed(BaseException):
    """No handler of errors sees it, as none sees a crash."""


@pytest.mark.parametrize("most", [12, 11])
def test_answers_of_finished_batches_are_not_made_again(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after two batches; where answers may be longer than they were, they are others."""
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)
    model, tokenizer = lively(make_model()), make_tokenizer()
    ids = [tokenizer(text)["input_ids"] for text in PROMPTS]
    batches: list[int] = []

    def progress(done: int, total: int) -> None:
        batches.append(done)
        if len(batches) == 2:
            raise Killed

    def passes(kept: Answers | None) -> tuple[int, list[str]]:
        count: list[int] = []
        with model.register_forward_pre_hook(lambda *_: count.append(1)):
            made = Answerer(model, tokenizer, Ends((), 12), 60).answers(ids, lambda done, total: None, kept)
        return len(count), made

    with pytest.raises(Killed):
        Answerer(model, tokenizer, Ends((), most), 60).answers(ids, progress, Answers(tmp_path / "a", "key"))
    assert 0 < batches[-1] < len(PROMPTS)
    (every, whole), (some, again) = passes(None), passes(Answers(tmp_path / "a", "key"))
    assert again == whole
    assert some < every if most == 12 else some == every
