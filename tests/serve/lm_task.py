"""A task for lm-eval that reads a file next to it: the perplexity of two short texts."""

import json
from pathlib import Path

import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXTS = ["The quick brown fox jumps over the lazy dog.", "A model is pruned, and what is left is measured again."]


def write_task(folder: Path) -> Path:
    """The task's YAML; its name is the file's."""
    (folder / "texts.jsonl").write_text("".join(json.dumps({"page": text}) + "\n" for text in TEXTS))
    files = {"data_files": {"test": str(folder / "texts.jsonl")}}
    task = {
        "task": "two_texts",
        "dataset_path": "json",
        "dataset_kwargs": files,
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }
    file = folder / "two_texts.yaml"
    file.write_text(yaml.safe_dump(task))
    return file


@torch.no_grad()
def score_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Word perplexity by hand: after the token that lm-eval puts in front."""
    nll, words = 0.0, 0
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        logits = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0, :-1]
        nll += torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()
        words += len(text.split())
    return float(torch.tensor(nll / words).exp())
