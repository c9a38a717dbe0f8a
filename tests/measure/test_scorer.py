"""Against lm-eval's own backend, one prompt at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import normalizers
from transformers import AutoTokenizer

from bench.data.pack import Pack
from bench.errors import LeanboardError, UsageError
from bench.measure import scorer, stock_tasks
from bench.measure.scorer import PackedLM
from bench.model.surgery import prune
from bench.protocol import Protocol
from bench.shape import BlockKept, Kept
from tests.measure.test_accuracy import spec
from tests.model.test_factors import factored
from tests.packs import make_pack
from tests.tiny import make_model, make_tokenizer

TASKS = ["boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"]


def lean() -> torch.nn.Module:
    """Layers with widths of their own, one of them without grouped queries."""
    kept = {i: BlockKept((0, 1, 2, 3), tuple(range(96 - 20 * i))) for i in range(4)}
    return prune(make_model(kv_heads=2), Kept({**kept, 1: BlockKept((0, 1), tuple(range(5, 90)))}))


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "mha": make_model,
    "gqa": lambda: make_model(kv_heads=2, tied=True),
    "lean_llama": lean,
    "factored": lambda: factored({"kv_heads": 2})[0],
    "window": lambda: make_model(family="mistral", kv_heads=2, sliding_window=16),
    "head norms": lambda: make_model(family="qwen3", kv_heads=2, head_dim=24),
}


def ask(*pairs: tuple[str, str]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


def stock(model: torch.nn.Module, requests: list[Instance]) -> list[tuple[float, bool]]:
    return HFLM(pretrained=model, tokenizer=make_tokenizer(), batch_size=1).loglikelihood(requests, disable_tqdm=True)


def packed(model: torch.nn.Module, requests: list[Instance]) -> list[tuple[float, bool]]:
    lm = PackedLM(model, make_tokenizer())
    assert lm.notes == []
    return lm.loglikelihood(requests)


def assert_same(ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]], tolerance: float = 1e-4) -> None:
    assert [logp for logp, _ in ours] == pytest.approx([logp for logp, _ in theirs], abs=tolerance)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"))])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", TASKS)
def test_answers_are_lm_evals(name: str, kind: str, pack: Pack) -> None:
    model = MODELS[kind]()
    requests = stock_tasks.build_requests(stock_tasks.build_tasks(spec(name), pack)[""], 6)
    assert_same(packed(model, requests), stock(model, requests))


def test_greedy_continuations_are_found() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    context = "What is kept?"
    ids = tokenizer(context, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=3, do_sample=False, min_new_tokens=3)[0, ids["input_ids"].shape[1] :]
    lm = PackedLM(model, tokenizer)
    encoded = [(("", ""), ids["input_ids"][0].tolist(), made.tolist()), (("", ""), ids["input_ids"][0].tolist(), [5])]
    assert [greedy for _, greedy in lm._loglikelihood_tokens(encoded)] == [True, made[0].item() == 5]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_half_precision_is_loosely_the_same(attention: str, pack: Pack) -> None:
    model = make_model(kv_heads=2).to(torch.bfloat16)
    model.set_attn_implementation(attention)
    requests = stock_tasks.build_requests(stock_tasks.build_tasks(spec("arc_easy"), pack)[""], 6)
    ours, theirs = packed(model, requests), stock(model, requests)
    assert [logp for logp, _ in ours] == pytest.approx([logp for logp, _ in theirs], abs=0.5, rel=0.02)


EDGES = {
    "an empty context": [("", "The quick"), ("", "The lazy"), ("", "The")],
    "continuations that begin each other": [("A model", " is"), ("A model", " is pruned"), ("A model", " is pruned,")],
    "equal requests": [("A model", " is pruned")] * 3,
    "several contexts of one continuation": [("The red fox", " runs"), ("The red dog", " runs")],
    "one token and one to score": [("A", "B"), ("C", "D")],
    "trailing spaces": [("A model ", "is"), ("A model  ", "is")],
    "the beginning-of-text token in the context": [("<s>A model", " is"), ("<s>A model", " was")],
    "longer than the model reads": [("A fox. " * 200, "It is kept."), ("A fox. " * 200, "No."), ("A fox.", " Yes.")],
}


@pytest.mark.parametrize("case", EDGES)
def test_edges_are_lm_evals(case: str) -> None:
    model = make_model()
    assert_same(packed(model, ask(*EDGES[case])), stock(model, ask(*EDGES[case])))


def test_a_document_longer_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CPU_TOKENS", 16)
    model = make_model()
    requests = ask(*[("A fox stands and waits. " * 8 + f"Number {i}", f" is {i}.") for i in range(3)], ("A", "B"))
    assert_same(packed(model, requests), stock(model, requests))


def test_common_beginnings_are_computed_once() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    context = "Question: what is kept? Answer:"
    endings = [" the parts", " the heads", " no", " the parts"]
    lm = PackedLM(model, tokenizer)
    seen: list[int] = []
    model.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0].numel()), with_kwargs=True)
    lm.loglikelihood(ask(*[(context, ending) for ending in endings]))
    inputs = [lm.tok_encode(context + ending)[:-1] for ending in endings]
    assert seen == [len({tuple(ids[: i + 1]) for ids in inputs for i in range(len(ids))})]
    assert seen[0] < 2 * len(inputs[0]) < sum(len(ids) for ids in inputs)


def test_nothing_leaks_between_documents_or_choices() -> None:
    model = make_model()
    fixed = [("The fox jumps over", " the dog"), ("What is left is", " measured again")]
    base = packed(model, ask(*fixed, ("The fox jumps over", " a model"), ("heads and", " channels")))
    other = packed(model, ask(*fixed, ("The fox jumps over", " 0 1 23"), ("drehen", " 9999")))
    assert [logp for logp, _ in base[:2]] == pytest.approx([logp for logp, _ in other[:2]], abs=1e-6)
    assert base[2:] != other[2:]


def test_answers_come_in_the_order_of_the_requests() -> None:
    requests = ask(*[(f"Number {i} is", f" {9 - i}.") for i in range(10)])
    model = make_model()
    straight, back = packed(model, requests), packed(model, requests[::-1])
    assert len({logp for logp, _ in straight}) == 10
    assert_same(back[::-1], straight, 1e-6)


def ignoring(*names: str) -> torch.nn.Module:
    """A model whose decoder takes these arguments and does not heed them."""
    model = make_model()
    forward = model.model.forward
    model.model.forward = lambda *args, **kwargs: forward(*args, **{k: v for k, v in kwargs.items() if k not in names})
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["attention_mask", "position_ids"])
def test_a_model_that_does_not_heed_the_mask_is_scored_by_lm_eval_and_noted(name: str, dtype: torch.dtype) -> None:
    model = ignoring(name).to(dtype)
    requests = ask(("The fox", " jumps"), ("The fox", " runs away"))
    seen: list[tuple[int, int]] = []
    lm = PackedLM(model, make_tokenizer()).following(lambda done, total: seen.append((done, total)))
    assert_same(lm.loglikelihood(requests), stock(model, requests), 1e-4 if dtype == torch.float32 else 0.3)
    assert len(lm.notes) == 1
    assert "scored by lm-eval's own backend: with common beginnings computed once" in lm.notes[0]
    assert seen[-1] == (2, 2)


def test_a_model_that_refuses_the_mask_is_scored_by_lm_eval_and_noted() -> None:
    model = make_model()
    forward = model.model.forward

    def refusing(*args: object, attention_mask: torch.Tensor | None = None, **kwargs: object) -> object:
        if attention_mask is not None and attention_mask.dim() == 4:
            raise ValueError("wrong shape of mask\nand more")
        return forward(*args, attention_mask=attention_mask, **kwargs)

    model.model.forward = refusing
    assert PackedLM(model, make_tokenizer()).notes == [
        "scored by lm-eval's own backend: the model takes no 4-D attention mask (ValueError: wrong shape of mask)"
    ]


def test_what_cannot_be_scored_is_one_sentence() -> None:
    model = make_model()
    lm = PackedLM(model, make_tokenizer())
    with pytest.raises(LeanboardError, match="'<s>': 0 tokens to score; 1 to 512 are possible"):
        lm.loglikelihood(ask(("", "<s>")))
    with pytest.raises(LeanboardError, match="1 to 512 are possible"):
        lm.loglikelihood(ask(("A", "0 1 2 3 4 5 6 7 8 9" * 60)))
    with pytest.raises(NotImplementedError):
        lm.loglikelihood_rolling([])
    with pytest.raises(NotImplementedError):
        lm.generate_until([])
    model.model.norm.weight.data[3] = float("nan")
    with pytest.raises(LeanboardError, match="not finite for 1 of 1 continuations"):
        PackedLM(model, make_tokenizer()).loglikelihood(ask(("A", "B")))


def test_a_tokenizer_without_bos_and_eos_scores_all_but_empty_prompts() -> None:
    plain = make_tokenizer()
    plain.bos_token = plain.eos_token = None
    lm, pairs = PackedLM(make_model(), plain), ask(("What is kept?", " the heads"), ("A fox", " jumps over"))
    assert lm.loglikelihood(pairs) == packed(make_model(), pairs), "this one puts no BOS before a text by itself"
    with pytest.raises(UsageError, match="an empty prompt is replaced by BOS or EOS, and the tokenizer has neither"):
        lm.loglikelihood(ask(("A fox", " jumps"), ("", "the dog")))


def test_the_model_is_left_as_it_was(tiny_gqa: Path) -> None:
    from bench.measure.subject import Subject

    subject = Subject(tiny_gqa)
    before = subject.model.config._attn_implementation
    PackedLM(subject.model, subject.tokenizer).loglikelihood(ask(("A", " model"), ("A", " fox")))
    assert subject.model.config._attn_implementation == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("bos", [None, True, False])
def test_a_bos_is_there_or_not_as_lm_evals_own_option_has_it(adds: bool, bos: bool | None, tmp_path: Path) -> None:
    """lm-eval's `add_bos_token` is an option of the tokenizer that it loads, so that it needs one on disk."""
    model = make_model()
    make_tokenizer().save_pretrained(tmp_path)
    own = AutoTokenizer.from_pretrained(tmp_path, **({"add_bos_token": True} if adds else {}))
    own.save_pretrained(tmp_path / "own")
    requests = ask(("What is kept?", " the heads"), ("A fox", " jumps over"), ("", "the dog"))
    lm = HFLM(pretrained=model, tokenizer=str(tmp_path / "own"), batch_size=1, add_bos_token=bos)
    theirs = lm.loglikelihood(requests, disable_tqdm=True)
    ours = PackedLM(model, AutoTokenizer.from_pretrained(tmp_path / "own"))
    protocol = Protocol.parse({None: "0shot", True: "0shot+bos", False: "0shot+nobos"}[bos])
    assert_same(ours.following(lambda done, total: None, None, protocol).loglikelihood(requests), theirs, 1e-3)
    begins = ours.tok_encode("A fox")[0] == own.bos_token_id
    assert begins == (adds if bos is None else bos)


def test_prompt_and_answer_are_tokenised_separately_where_the_protocol_says_so() -> None:
    """With a tokenizer that, as LLaMA's, puts a space before every text: the answer has one more."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    lm = PackedLM(make_model(), tokenizer)
    together = lm._encode_pair("What is kept?", " the heads")
    lm.following(lambda done, total: None, None, Protocol.parse("0shot+bos+separate"))
    prompt, answer = lm._encode_pair("What is kept?", " the heads")
    assert (tokenizer.decode(together[1]), tokenizer.decode(answer)) == (" the heads", "  the heads")
    assert prompt == [tokenizer.bos_token_id, *together[0]]
    assert answer == tokenizer(" the heads", add_special_tokens=False)["input_ids"]
    [(logp, _)] = lm.loglikelihood(ask(("What is kept?", " the heads")))
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        table = lm.model(ids).logits[0].float().log_softmax(dim=-1)
    parts = [float(table[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]
    assert logp == pytest.approx(sum(parts), abs=1e-4)
