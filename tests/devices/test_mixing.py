"""All that methods, recoveries and measurements make follows the model to its device, and gives the CPU's numbers.

The device is pretended (`tests.devices.pretended`), so that this needs no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lm_eval.api.instance import Instance
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.recoveries import RECOVERIES, load_recovery, resolve_recovery
from bench.measure import continuations, divergence
from bench.measure.generation.backend import Workload
from bench.measure.generation.hf import Transformers
from bench.measure.generation.timing import Local
from bench.measure.greedy import Answerer, Ends
from bench.measure.perplexity import window_losses
from bench.measure.scorer import PackedLM
from bench.measure.subject import Subject
from bench.method import Context, Method, MethodConfig, Target, Traits
from bench.model.layers import head_of
from bench.model.load import load_folder
from bench.protocol import Protocol
from bench.registry import load_registry
from bench.run.compress import Order, Stages, Texts, build
from tests.blocks.context import make_context, token_ids
from tests.devices.pretended import DEVICE, Mixed, OnDevice, held, pretended, strays
from tests.tiny import make_checkpoint, make_tokenizer

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 2, "micro_batch": 2, "holdout": 2, "evaluate_every": 1}
SHORT |= {"max_length": 24, "sweeps": 5, "spans": 2, "calibration_samples": 6, "seq_len": 16, "n_samples": 3}
SHORT |= {"dropout": 0.0}  # for a device of that name `torch.random.fork_rng`, within checkpointing, puts nothing back
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "llm_pruner": [
        {"importance": "param_mix"},
        {"importance": "param_second"},
        {"importance": "vectorize", "global_ranking": True, "calibration_samples": 20},
        {"mode": "channel"},
        {"mode": "layer"},
    ],
    "layer_drop": [{"order": "contiguous"}, {"order": "last"}],
    "saap": [
        {"sigma_fit": "adam", "vector_granularity": "member"},
        {"search": "uniform", "element_order": "param_first"},
    ],
    "compresso": [{"prepruning_epochs": 0, "epochs": 2, "finetune_epochs": 1}],
    "pruning_adapter": [{"channels": False, "train_norms": False}],
    "capaboost": [{"form": "adapter"}, {"mask_type": "nm"}],
    "trawl": [{"decomposition": "tucker", "mode": 1}, {"mode": 2, "attention_set": "repeat", "materialize": True}],
    "laser": [{"materialize": True}],
}
UNSIZED = ("mode", "materialize", "channels")
"""Settings that do not go with a target."""
CASES = [(name, config) for name in sorted(load_registry().methods) for config in [{}, *VARIANTS.get(name, [])]]


def model_of(folder: Path, device: str) -> PreTrainedModel:
    return load_folder(folder, "float32", device)[0]


def context(device: torch.device, target: Target | None = None) -> Context:
    return replace(make_context(target=target), device=device)


def settings(cls: type[Method], config: dict[str, Any]) -> MethodConfig:
    fields = cls.Config.model_fields
    return cls.Config(**{name: value for name, value in SHORT.items() if name in fields} | config)


def compressed(model: PreTrainedModel, name: str, config: dict[str, Any]) -> PreTrainedModel:
    cls = load_registry().method(name).cls
    sized = "shapes" in cls.traits.changes and cls.traits.track != "peft" and not set(UNSIZED) & config.keys()
    method, ctx = cls(settings(cls, config)), context(model.device, Target(value=0.2) if sized else None)
    model = method.compress(model, ctx)
    return method.finalize(method.recover(model, ctx), ctx)


def recovered(model: PreTrainedModel, name: str, **fields: Any) -> PreTrainedModel:
    known = RECOVERIES[name].settings.model_fields
    wanted = {"name": name, **{key: value for key, value in SHORT.items() if key in known}, **fields}
    return load_recovery(resolve_recovery(wanted, "test") or {})(model, context(model.device))


def on_both(make: Callable[[str], Any]) -> tuple[Any, Any]:
    """What `make(device)` gives on the CPU, and on the device."""
    plain = make("cpu")
    with pretended():
        return plain, make(DEVICE)


def assert_same_model(plain: PreTrainedModel, there: PreTrainedModel) -> None:
    assert strays(dict(there.named_parameters()) | dict(there.named_buffers())) == []
    assert_same_weights(plain, there)


def assert_same_weights(plain: PreTrainedModel, there: PreTrainedModel) -> None:
    weights = dict(there.named_parameters())
    assert weights.keys() == dict(plain.named_parameters()).keys()
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(held(weights[name].data), weight.data, atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), kv_heads=2, hidden=32, channels=64)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
def test_methods_follow_the_model(folder: Path, name: str, config: dict[str, Any]) -> None:
    assert_same_model(*on_both(lambda device: compressed(model_of(folder, device), name, config)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "fields"),
    [
        ("lora", "llm_pruner", {}),
        ("lora", "laser", {"targets": ["q_proj", "factors"]}),
        ("grouped", "llm_pruner", {}),
        ("grouped", "llm_pruner", {"bits": None}),
    ],
)
def test_recoveries_follow_the_model(folder: Path, name: str, before: str, fields: dict[str, Any]) -> None:
    def make(device: str) -> PreTrainedModel:
        return recovered(compressed(model_of(folder, device), before, {}), name, **fields)

    assert_same_model(*on_both(make))


@pytest.mark.slow
def test_a_checkpoint_is_made_saved_and_loaded_on_the_device(folder: Path, tmp_path: Path) -> None:
    cls = load_registry().method("llm_pruner").cls

    def make(device: str) -> PreTrainedModel:
        method, texts = cls(settings(cls, {})), Texts(ids=token_ids(6, 16))
        few = {"steps": 2, "batch_size": 2, "dropout": 0.0, "holdout": 0}
        recovery = resolve_recovery({"name": "lora", **few}, "test")
        order = Order(folder, method, recovery, Target(value=0.2), 0, "float32", device, texts, {})
        return build(order, tmp_path / device, Stages("cpu")).loaded[0]

    assert_same_model(*on_both(make))


def test_perplexity_follows_the_model(folder: Path) -> None:
    plain, there = on_both(lambda device: window_losses(model_of(folder, device), token_ids(3, 40)))
    assert there == pytest.approx(plain, rel=1e-5)


EXAMPLES = "A fox stands and waits.\n" * 12


@pytest.mark.parametrize("examples", ["", EXAMPLES], ids=["0shot", "5shot"])
def test_accuracy_follows_the_model(folder: Path, examples: str) -> None:
    plain, there = on_both(lambda device: answers(model_of(folder, device), examples))
    assert [logp for logp, _ in there] == pytest.approx([logp for logp, _ in plain], rel=1e-5)
    assert [greedy for _, greedy in there] == [greedy for _, greedy in plain]


def answers(model: PreTrainedModel, examples: str) -> list[tuple[float, bool]]:
    """Of a few texts, behind examples whose keys and values are kept, if there are any."""
    texts = [("A fox", " jumps"), ("A fox", " is lazy"), ("The dog", " is kept again"), ("So", " is"), ("It", " is")]
    asked = [Instance("loglikelihood", {}, (examples + text, answer), i) for i, (text, answer) in enumerate(texts)]
    protocol = Protocol("5shot" if examples else "0shot")
    lm = PackedLM(model, make_tokenizer()).following(lambda done, total: None, None, protocol)
    assert lm.notes == []
    with patch.object(lm, "_cache_of", wraps=lm._cache_of) as keeping:
        found = lm.loglikelihood(asked)
    assert keeping.called == bool(examples)
    return found


def test_generation_follows_the_model(folder: Path) -> None:
    def generated(device: str) -> Any:
        backend: Any = Transformers(model_of(folder, device))
        return Local(backend).generate(Workload(2, 12, 5)).ids

    plain, there = on_both(generated)
    assert there == plain


def test_divergence_follows_the_models(folder: Path, tmp_path: Path) -> None:
    small = make_checkpoint(tmp_path, kv_heads=2, hidden=16, channels=32)

    def summed(device: str) -> Any:
        dense, model = model_of(folder, device), model_of(small, device)
        there, here = (divergence.hidden_of(one, token_ids(3, 40)) for one in (dense, model))
        kl, same = divergence.divergences(head_of(dense), there, head_of(model), here.cpu())
        return kl.tolist() + same.tolist()

    plain, there = on_both(summed)
    assert there == pytest.approx(plain, rel=1e-5)


def test_continuations_follow_the_model(folder: Path) -> None:
    plain, there = on_both(
        lambda device: continuations.continued(Subject(folder, device=device), ["A fox", "The lazy dog is"], 5)
    )
    assert there == plain


@pytest.mark.parametrize("examples", ["", EXAMPLES], ids=["0shot", "5shot"])
def test_own_answers_follow_the_model(folder: Path, examples: str) -> None:
    """In one batch, which rows leave one after another."""

    def answered(device: str) -> Any:
        model, tokenizer = model_of(folder, device), make_tokenizer()
        texts = ("A fox", "The lazy dog", "It", "What", "So")
        prompts = [tokenizer(f"{examples}{text} is")["input_ids"] for text in texts]
        return Answerer(model, tokenizer, Ends(tuple("aeiou"), 6), 2000).answers(prompts, lambda done, total: None)

    plain, there = on_both(answered)
    assert there == plain


class Faulty(Method):
    """Multiplies what a projection gives by ones that lie where they should not."""

    name, version, traits = "faulty", "1", Traits(title="Faulty", track="control")

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        weight = model.model.layers[0].mlp.up_proj.weight
        if self.fault == "made on the CPU":
            weight.data *= torch.ones(weight.shape[1])
        elif self.fault == "indexed on the CPU":
            weight.data.index_select(0, torch.arange(4))
        elif self.fault == "generator of the CPU":
            weight.data.normal_(generator=ctx.generator("faulty"))
        elif self.fault == "joined with the CPU":
            torch.cat([weight.data, torch.zeros_like(weight.data, device="cpu")])
        elif self.fault == "text on the CPU":
            model(input_ids=ctx.calibration(2, 8).cpu())
        else:
            model.model.norm.weight = nn.Parameter(torch.ones(len(model.model.norm.weight)))
        return model


FAULTS = ["made on the CPU", "indexed on the CPU", "generator of the CPU", "joined with the CPU", "text on the CPU"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(folder: Path, fault: str) -> None:
    Faulty(fault).compress(model_of(folder, "cpu"), context(torch.device("cpu")))
    with pretended(), pytest.raises(Mixed):
        Faulty(fault).compress(model_of(folder, DEVICE), context(torch.device(DEVICE)))


def test_a_weight_that_is_left_on_the_cpu_is_found(folder: Path) -> None:
    with pretended():
        model = Faulty("left behind").compress(model_of(folder, DEVICE), context(torch.device(DEVICE)))
    assert strays(dict(model.named_parameters())) == ["model.norm.weight"]
    with pretended(), pytest.raises(Mixed):
        model(input_ids=token_ids(1, 8).to(DEVICE))


def test_what_cuda_allows_is_no_fault() -> None:
    with pretended():
        there = torch.arange(6.0).view(2, 3).to(DEVICE)
        assert isinstance(there * torch.tensor(2.0), OnDevice)
        assert isinstance(there[torch.tensor([1])], OnDevice)
        assert there[:, 1].tolist() == [1.0, 4.0]
        there[0].copy_(torch.ones(3))
        assert there.sum().item() == 15.0
        assert not isinstance(there.cpu(), OnDevice)
        assert isinstance(torch.tensor([1, 2], device=DEVICE), OnDevice)
