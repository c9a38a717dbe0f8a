"""The process that loads checkpoints for the kit, seen from the kit's side; its own is `bench.conformance.reload`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import load_file

from bench.conformance import reload


class Reader:
    """A process that never saw the models. It starts with the block: its imports take no time from what comes first."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", reload.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def logits(self, folder: Path) -> torch.Tensor:
        """The logits that the checkpoint in `folder` gives there, float32 [2, 24, vocab].

        Raises:
            RuntimeError: it cannot be loaded there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out = Path(f"{folder}.logits")
        print(json.dumps({"folder": str(folder), "out": str(out)}), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        error = json.loads(reply)["error"] if reply else f"the process died (exit code {self._process.wait()})"
        if error:
            raise RuntimeError(error)
        return load_file(out)["logits"]
