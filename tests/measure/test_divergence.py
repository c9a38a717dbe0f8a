import json
import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from bench import evaluate
from bench.data.pack import Pack
from bench.errors import LeanboardError, UsageError
from bench.measure import divergence, measure
from bench.measure.subject import Subject
from bench.record.schema import Evidence
from bench.registry import tasks_named
from bench.task import Task
from tests.packs import make_pack
from tests.tiny import make_model, make_tokenizer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"))])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of other weights than `tiny_mha`, and of fewer heads."""
    folder = tmp_path_factory.mktemp("other")
    model = make_model(kv_heads=2)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def task_of(text: str) -> Task:
    [task] = tasks_named(text)
    return task


def test_values_are_those_of_the_definition(pack: Pack, tiny_mha: Path, other: Path) -> None:
    """Against stock transformers, the logits of whole windows and float64."""
    found = measure(task_of("divergence@wikitext2/32/limit5"), Subject(other, dense=tiny_mha), pack)
    ids = make_tokenizer()("\n\n".join(pack.column("wikitext2_raw/test", "text")))["input_ids"]
    rows = torch.tensor(ids[: 5 * 32]).view(5, 32)
    with torch.no_grad():
        p, q = (
            LlamaForCausalLM.from_pretrained(folder).eval()(rows).logits[:, :-1].double().log_softmax(-1)
            for folder in (tiny_mha, other)
        )
    sums = (p.exp() * (p - q)).sum(dim=(1, 2))
    same = (p.argmax(-1) == q.argmax(-1)).double()
    kl, top1 = found.metrics
    assert (kl.id, kl.unit, kl.n) == ("divergence.kl@wikitext2/32/limit5", "nats/token", 5 * 31)
    assert kl.value == pytest.approx(float(sums.sum()) / (5 * 31), abs=1e-6)
    assert kl.value > 0.1
    assert kl.stderr == pytest.approx(float((sums / 31).std()) / math.sqrt(5), abs=1e-6)
    assert (top1.id, top1.unit, top1.value) == (
        "divergence.top1@wikitext2/32/limit5",
        "fraction",
        pytest.approx(float(same.mean())),
    )
    kept = found.evidence.sums
    assert kept["kl"].nll == pytest.approx(sums.tolist(), abs=1e-5)
    assert kept["top1"].nll == same.sum(dim=1).tolist()
    assert kept["kl"].targets == kept["top1"].targets == [31] * 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dense_model_does_not_move_at_all(pack: Pack, tiny_gqa: Path, dtype: str) -> None:
    found = measure(task_of("divergence@wikitext2/128/limit3"), Subject(tiny_gqa, tiny_gqa, dtype), pack)
    assert [metric.value for metric in found.metrics] == [0.0, 1.0]
    assert set(found.evidence.sums["kl"].nll) == {0.0}


def test_slices_of_positions_change_nothing_and_bound_the_logits(
    monkeypatch: pytest.MonkeyPatch, pack: Pack, tiny_mha: Path, other: Path
) -> None:
    def found() -> Evidence:
        return measure(task_of("divergence@wikitext2/64/limit4"), Subject(other, tiny_mha), pack).evidence

    whole = found()
    sizes: list[int] = []
    forward = torch.nn.Linear.forward

    def watched(layer: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        if layer.out_features == 300:
            sizes.append(given.shape[0] * given.shape[1])
        return forward(layer, given)

    monkeypatch.setattr(divergence, "POSITIONS_PER_SLICE", 8)
    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    parts = found()
    assert set(sizes) == {8, 4}, "4 windows, 2 positions each, and an odd one"
    assert parts.sums["kl"].nll == pytest.approx(whole.sums["kl"].nll, rel=1e-6)
    assert parts.sums["top1"] == whole.sums["top1"]


def test_one_model_at_a_time_is_in_memory(
    monkeypatch: pytest.MonkeyPatch, pack: Pack, tiny_mha: Path, other: Path
) -> None:
    subject = Subject(other, dense=tiny_mha)
    held: list[bool] = []
    hidden_of = divergence.hidden_of

    def watched(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
        held.append("_loaded" in vars(subject))
        return hidden_of(model, rows)

    monkeypatch.setattr(divergence, "hidden_of", watched)
    seen: list[tuple[int, int]] = []
    task = task_of("divergence@wikitext2/128/limit3")
    measure(task, subject, pack, lambda done, total: seen.append((done, total)))
    assert held == [True, False]
    assert seen == [(3, 6), (6, 6)]


def test_what_cannot_be_compared_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Pack, tiny_mha: Path
) -> None:
    task = task_of("divergence@wikitext2/32/limit2")
    with pytest.raises(UsageError, match="needs the dense model that the checkpoint was made from"):
        measure(task, Subject(tiny_mha), pack)
    with pytest.raises(UsageError, match=r"dense: task divergence@wikitext2/32/limit2 needs the model"):
        evaluate(tiny_mha, [task.id])
    small = make_model(vocab=200)
    small.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="has 200 tokens in its vocabulary, not 300"):
        measure(task, Subject(tiny_mha, dense=tmp_path), pack)
    make_model().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="has no tokenizer: its tokens may be other ones"):
        measure(task, Subject(tiny_mha, dense=tmp_path), pack)
    tokens = json.loads(make_tokenizer().backend_tokenizer.to_str())
    vocab = tokens["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tokens)))
    other.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=rf"has 2 other tokens in its vocabulary.* of id {vocab['b']}: 'b', not 'a'"):
        measure(task, Subject(tiny_mha, dense=tmp_path), pack)
    subject = Subject(tiny_mha, dense=tiny_mha)
    subject.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LeanboardError, match="logits are not finite in 2 of 2 windows"):
        measure(task, subject, pack)


def test_the_protocol_names_a_perplexity_task_its_window_and_its_bos() -> None:
    assert [task.id for task in tasks_named("divergence")] == ["divergence@wikitext2/2048"]
    [task] = tasks_named("divergence.kl@lambada_text/0128+nobos/limit16")
    assert task.id == "divergence@lambada_text/128+nobos/limit16"
    assert task.spec.data() == ["lambada_passages/test"]
    assert task.settings()["task"]["source"]["join"] == "\n\n"
    for wrong in ("wikitext2", "128", "wikitext2/1", "wikitext2/x"):
        with pytest.raises(UsageError, match=r"is not <perplexity task>/<window of 2 tokens or more>"):
            tasks_named(f"divergence@{wrong}")
    with pytest.raises(UsageError, match="unknown perplexity task 'wikitext'; did you mean wikitext2"):
        tasks_named("divergence@wikitext/128")
    with pytest.raises(UsageError, match="unknown perplexity task 'piqa'"):
        tasks_named("divergence@piqa/128")


def test_from_python_against_a_dense_model_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_mha: Path, other: Path
) -> None:
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path)))
    kl, top1 = evaluate(other, ["divergence@wikitext2/32"], limit=2, dense=tiny_mha)
    assert kl.id == "divergence.kl@wikitext2/32/limit2"
    assert kl.value > 0
    assert top1.value < 1
