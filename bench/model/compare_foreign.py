"""`python -m bench.model.compare_foreign FOLDER COPY`: the one place where a model's own code is ever run.

Only `bench.foreign` starts it, for a user who gave `--trust-remote-code`. It fails, with the reason on its last line,
where the code's logits or token ids are not those of the copy, which is loaded by transformers' own classes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

TOLERANCE = 1e-4
TEXT = "The quick brown fox, 42 of them; jumps\n over the lazy dog."


def main() -> None:
    """Compare the two folders that the command line names."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_MODULES_CACHE"] = folder  # where transformers copies the code to
        sys.exit(_difference(Path(sys.argv[1]), Path(sys.argv[2])))


def _difference(folder: Path, copy: Path) -> str | None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bench.model.checkpoint import take_probe
    from bench.model.load import load_folder

    ours, tokenizer = load_folder(copy)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=True
    ).eval()
    got, expected = take_probe(theirs), take_probe(ours)
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(got.logits, expected.logits, strict=True))
    if not worst <= TOLERANCE:
        return f"its logits differ by {worst:.2g} from those of transformers' own classes (limit {TOLERANCE:g})"
    if tokenizer is not None:
        own = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=True)
        if own(TEXT)["input_ids"] != tokenizer(TEXT)["input_ids"]:
            return "its tokenizer gives other token ids without its code"
    return None


if __name__ == "__main__":
    main()
