"""Loads an exported folder as one without Leanboard does: `python foreign.py DIR` in a process of its own.

It uses transformers and what lies in the folder, nothing else; Leanboard cannot be imported here. Prints, as JSON, the
largest difference between its logits and the probe in leanboard.json, relative where they are above 1.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def worst_difference(folder: Path) -> float:
    """Of the logits of the probe's ids, at the probe's entries."""
    import torch
    from transformers import AutoModelForCausalLM

    manifest = json.loads((folder / "leanboard.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    loader: Any = AutoModelForCausalLM
    if "auto_map" in config:
        module, name = config["auto_map"]["AutoModelForCausalLM"].split(".")
        sys.path.insert(0, str(folder))
        loader = getattr(importlib.import_module(module), name)
    model = loader.from_pretrained(folder, dtype=getattr(torch, manifest["dtype"])).eval()
    probe = manifest["probe"]
    with torch.no_grad():
        logits = model(torch.tensor([probe["ids"]])).logits[0, -1].float()
    expected = torch.tensor(probe["logits"])
    difference = (logits[probe["entries"]] - expected).abs() / expected.abs().clamp(min=1)
    return float(difference.max())


if __name__ == "__main__":
    sys.modules["bench"] = sys.modules["methods"] = None  # type: ignore[assignment]
    print(json.dumps(worst_difference(Path(sys.argv[1]))))
