import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from bench.catalogue import CATALOGUE
from bench.data.pack import Pack
from bench.errors import LeanboardError, UsageError
from bench.measure import measure, perplexity
from bench.measure.encoding import ids_and_bytes, token_ids
from bench.measure.subject import Subject
from bench.model.stand_in import Layout, small_config, write_stand_in
from bench.task import PerplexityTask, Task
from tests.packs import make_pack
from tests.tiny import make_tokenizer

SPEC = PerplexityTask(
    name="wikitext2",
    kind="perplexity",
    description="",
    text="wikitext2_raw/test",
    column="text",
    join="\n\n",
    windows=(128, 32),
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"))])


def test_a_thousand_ids_make_seven_windows_of_128() -> None:
    rows = perplexity.windows(torch.arange(1000), 128)
    assert rows.shape == (7, 128)
    assert rows[:, 1:].numel() == 889
    assert rows.flatten().tolist() == list(range(896))


@pytest.mark.parametrize("fixture", ["tiny_mha", "tiny_gqa"])
@pytest.mark.parametrize("length", [32, 128])
def test_value_is_that_of_the_definition(fixture: str, length: int, pack: Pack, request: pytest.FixtureRequest) -> None:
    subject = Subject(request.getfixturevalue(fixture))
    result = measure(Task(SPEC, str(length)), subject, pack)
    ids = subject.tokenizer("\n\n".join(pack.column(SPEC.text, "text")))["input_ids"]
    nll, count = [], 0
    for start in range(0, len(ids) - length + 1, length):
        window = torch.tensor([ids[start : start + length]])
        with torch.no_grad():
            logits = subject.model(window).logits[0, :-1].double()
        nll.append(float(F.cross_entropy(logits, window[0, 1:], reduction="sum")))
        count += length - 1
    metric = result.metrics[0]
    assert metric.value == pytest.approx(math.exp(sum(nll) / count), rel=1e-5)
    assert (metric.id, metric.n, metric.unit) == (f"wikitext2.ppl_token@{length}", count, "ppl")
    assert (len(nll) > 1) == (metric.stderr is not None)
    assert result.evidence.windows is not None
    assert result.evidence.windows.nll == pytest.approx(nll, rel=1e-5)
    assert result.evidence.windows.targets == [length - 1] * len(nll)


def test_a_large_vocabulary_is_summed_as_finely_as_float32_can() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=50_000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).eval()
    with torch.no_grad():
        model.lm_head.weight *= 100
        rows = torch.randint(50_000, (3, 40))
        logits = model(rows).logits[:, :-1].double()
    exact = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").view(3, -1).mean(dim=1)
    found = torch.tensor(perplexity.window_losses(model, rows), dtype=torch.float64) / 39
    assert (found - exact).abs().max() < 5e-6


def test_standard_error_is_the_delta_method_over_windows(pack: Pack, tiny_mha: Path) -> None:
    result = measure(Task(SPEC, "32"), Subject(tiny_mha), pack)
    assert result.evidence.windows is not None
    means = torch.tensor(result.evidence.windows.nll) / 31
    metric = result.metrics[0]
    assert metric.stderr == pytest.approx(metric.value * float(means.std()) / math.sqrt(len(means)), rel=1e-4)


def tokenizers(folder: Path) -> Iterator[PreTrainedTokenizerBase]:
    """Byte-level BPE, and LLaMA's kind of sentencepiece, which puts a space and a BOS before every text."""
    yield make_tokenizer()
    write_stand_in(
        folder, small_config(CATALOGUE["vicuna-7b"].config), Layout(tokenizer="sentencepiece", dtype="float32")
    )
    yield AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("bos", [None, True, False])
def test_bytes_of_tokens_add_up_to_those_of_the_text(bos: bool | None, tmp_path: Path) -> None:
    text = "Page = \n\n naïve döner №5  für 10 €\t日本語 🎉🎉 don't  \n a" * 3
    for tokenizer in tokenizers(tmp_path / "model"):
        ids, ends = ids_and_bytes(tokenizer, text, bos)
        assert ids == token_ids(tokenizer, text, bos)
        assert ends is not None
        assert ends == sorted(ends)
        assert ends[-1] == len(text.encode())
        own = [len(tokenizer.decode(ids[: i + 1], skip_special_tokens=True).encode()) for i in range(len(ids))]
        begun = len(tokenizer.decode(ids, skip_special_tokens=True).encode()) - len(text.encode())
        whole = [i for i in range(len(ids)) if "\ufffd" not in tokenizer.decode(ids[: i + 1])]
        assert len(whole) > len(ids) / 2
        assert [ends[i] for i in whole] == [max(0, own[i] - begun) for i in whole]


def test_bits_per_byte_are_the_same_losses_over_the_bytes_of_the_targets(pack: Pack, tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    result = measure(Task(SPEC, "32"), subject, pack)
    ids = subject.tokenizer("\n\n".join(pack.column(SPEC.text, "text")))["input_ids"]
    rows = [ids[start + 1 : start + 32] for start in range(0, len(ids) - 31, 32)]
    sizes = [len(subject.tokenizer.decode(row).encode()) for row in rows]  # the text is ASCII
    bits = result.metrics[1]
    found = result.evidence.sums["bits_per_byte"]
    assert result.evidence.windows is not None
    assert (found.nll, found.targets) == (result.evidence.windows.nll, sizes)
    assert (bits.id, bits.n, bits.unit) == ("wikitext2.bits_per_byte@32", sum(sizes), "bits/byte")
    assert bits.value == pytest.approx(sum(found.nll) / math.log(2) / sum(sizes), rel=1e-12)


def test_a_tokenizer_without_offsets_gives_the_perplexity_alone(
    pack: Pack, tiny_mha: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tiny_mha)
    both = measure(Task(SPEC, "32", 2), subject, pack)
    monkeypatch.setattr(type(subject.tokenizer), "is_fast", False)
    alone = measure(Task(SPEC, "32", 2), subject, pack)
    assert alone.metrics == both.metrics[:1]
    assert alone.evidence.notes == [perplexity.NO_BYTES]


def test_limit_takes_the_first_windows(pack: Pack, tiny_mha: Path) -> None:
    seen: list[tuple[int, int]] = []
    whole = measure(Task(SPEC, "32"), Subject(tiny_mha), pack)
    part = measure(Task(SPEC, "32", 3), Subject(tiny_mha), pack, lambda done, total: seen.append((done, total)))
    assert part.metrics[0].id == "wikitext2.ppl_token@32/limit3"
    assert whole.evidence.windows is not None
    assert part.evidence.windows is not None
    assert part.evidence.windows.nll == pytest.approx(whole.evidence.windows.nll[:3], rel=1e-5)
    assert seen[-1] == (3, 3)


@pytest.mark.parametrize(
    ("adds", "protocol", "first"),
    [
        (False, "32", False),
        (False, "32+bos", True),
        (True, "32", True),
        (True, "32+bos", True),
        (True, "32+nobos", False),
    ],
)
def test_a_bos_stands_once_at_the_start_of_the_whole_text(
    adds: bool, protocol: str, first: bool, pack: Pack, tiny_mha: Path
) -> None:
    """Against a plain loop of transformers, with the BOS put there by hand."""
    subject = Subject(tiny_mha)
    plain = subject.tokenizer("\n\n".join(pack.column(SPEC.text, "text")), add_special_tokens=False)["input_ids"]
    ids = [1, *plain] if first else plain
    if adds:
        subject.tokenizer.add_bos_token = True
    result = measure(Task(SPEC, protocol, 4), subject, pack)
    rows = torch.tensor(ids[: 4 * 32]).view(4, 32)
    with torch.no_grad():
        logits = subject.model(rows).logits[:, :-1].double()
    loss = float(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))
    metric = result.metrics[0]
    assert metric.id == f"wikitext2.ppl_token@{protocol}/limit4"
    assert metric.value == pytest.approx(math.exp(loss), rel=1e-5)


def test_no_logits_of_a_whole_window_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(hidden.shape[0] * hidden.shape[1])
        return hidden @ torch.ones(4, 11)

    def body(ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.randn(*ids.shape, 4))

    model = SimpleNamespace(device="cpu", base_model=body)
    monkeypatch.setattr(perplexity, "head_of", lambda model: head)
    for batch, length in ((1, 2048), (16, 128), (2048, 2)):
        losses = perplexity.window_losses(model, torch.zeros(batch, length, dtype=torch.long))
        assert losses == pytest.approx([(length - 1) * math.log(11)] * batch, rel=1e-5)
    assert max(sizes) <= 2048
    assert max(sizes[:8]) <= perplexity.POSITIONS_PER_SLICE


def test_a_text_shorter_than_a_window_is_one_sentence(pack: Pack, tiny_mha: Path) -> None:
    with pytest.raises(UsageError, match=r"wikitext2@100000: wikitext2_raw/test: the text has \d+ tokens"):
        measure(Task(SPEC, "100000"), Subject(tiny_mha), pack)


def test_a_broken_model_is_told(pack: Pack, tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    subject.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LeanboardError, match="loss is not finite in 3 of 3 windows"):
        measure(Task(SPEC, "32", 3), subject, pack)
    subject.model.model.norm.weight.fill_(1e6)
    with pytest.raises(LeanboardError, match="too large for a float"):
        measure(Task(SPEC, "32", 3), subject, pack)
