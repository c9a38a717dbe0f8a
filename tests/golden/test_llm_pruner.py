"""LLM-Pruner against golden values: those of the published code where they are at hand, and a small file of our own.

The first need a folder with `llm_pruner/cases.json` and its checkpoint, named by `LEANBOARD_GOLDEN` or found as
`golden` in a folder next to the checkout. Ours, `llm_pruner.json`, was written by this code when it agreed with the
first (run this file as a module to write it anew); it also covers what the first do not.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from bench.blocks.groups import kept_of
from methods.llm_pruner import LLMPruner, LLMPrunerConfig
from tests.blocks.context import make_context
from tests.golden.arithmetic import arithmetic_ids, arithmetic_model

ROOT = Path(__file__).parents[2]
GOLDEN = os.environ.get("LEANBOARD_GOLDEN") or next(iter(sorted(ROOT.parent.glob("*/golden"))), ROOT / "absent")
PUBLISHED = Path(GOLDEN) / "llm_pruner"
OWN = Path(__file__).with_name("llm_pruner.json")
CONFIGS = [
    {"importance": "vectorize"},
    {"importance": "param_first"},
    {"importance": "param_second"},
    {"importance": "param_mix", "group_ratio": 0.5},
    {"importance": "l1"},
    {"importance": "l2", "reduction": "mean"},
    {"importance": "param_first", "reduction": "max"},
    {"importance": "param_first", "reduction": "prod"},
    {"importance": "param_first", "reduction": "first"},
    {"importance": "param_first", "reduction": "last"},
    {"importance": "param_first", "global_ranking": True, "group_ratio": 0.4},
    {"importance": "param_first", "iterative_steps": 3, "group_ratio": 0.5},
    {"importance": "param_first", "gqa_fold": "strided", "group_ratio": 0.5},
    {"importance": "param_first", "mode": "channel", "group_ratio": 0.2, "layers": None},
]


def published_cases():
    file = PUBLISHED / "cases.json"
    return json.loads(file.read_text())["cases"] if file.exists() else []


def prune(model, ids, config):
    fields = {"layers": (1, 3), **config}
    return LLMPruner(LLMPrunerConfig(**fields)).compress(model, make_context(ids=ids))


def summary(model, ids):
    kept = kept_of(model)
    return {
        "heads": {str(i): list(block.heads) for i, block in kept.blocks.items()},
        "channels": {str(i): list(block.channels) for i, block in kept.blocks.items()},
        "hidden": None if kept.hidden is None else list(kept.hidden),
        "params": sum(p.numel() for p in model.parameters()),
        "logits": model(ids[:1]).logits[0, -1, :8].tolist(),
    }


@pytest.mark.skipif(not published_cases(), reason=f"no golden values of the published code at {PUBLISHED}")
@pytest.mark.parametrize("index", range(len(published_cases())))
def test_the_published_code_keeps_the_same(index):
    from transformers import LlamaForCausalLM

    content = json.loads((PUBLISHED / "cases.json").read_text())
    case, ids = content["cases"][index], torch.tensor(content["calibration"])
    model = LlamaForCausalLM.from_pretrained(PUBLISHED).requires_grad_(False)
    config = {"importance": case["taylor"], "reduction": case["grouping"], "group_ratio": case["ratio"]}
    config |= {"global_ranking": case["global"], "layers": tuple(case["layers"])}
    pruned = prune(model, ids, config)
    kept, expected = kept_of(pruned), case["kept"]
    for layer in range(6):
        mine = expected[layer] if isinstance(expected, list) else expected[str(layer)]
        assert list(kept.blocks[layer].heads) == mine["heads"]
        assert list(kept.blocks[layer].channels) == mine["channels"]
    assert sum(p.numel() for p in pruned.parameters()) == case["params"]
    logits = pruned(ids[:1]).logits[0, -1, : len(case["logits"])]
    torch.testing.assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kv_heads", [8, 4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(str(value) for value in config.values()))
def test_nothing_has_changed(config, kv_heads):
    ids = arithmetic_ids()
    expected = json.loads(OWN.read_text())[_key(config, kv_heads)]
    found = summary(prune(arithmetic_model(kv_heads), ids, config), ids)
    logits = torch.tensor(found.pop("logits")), torch.tensor(expected.pop("logits"))
    assert found == expected
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def _key(config, kv_heads):
    return json.dumps({"kv_heads": kv_heads, **config}, sort_keys=True)


def write():
    """Write the golden file of our own."""
    ids = arithmetic_ids()
    content = {
        _key(config, kv_heads): summary(prune(arithmetic_model(kv_heads), ids, config), ids)
        for config in CONFIGS
        for kv_heads in (8, 4)
    }
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    OWN.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    write()
