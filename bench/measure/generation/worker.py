"""A worker process, which runs one checkpoint: `python -m bench.measure.generation.worker BACKEND`.

It imports its engine, which takes seconds, before the first command. Commands come as JSON lines on standard input,
answers go as JSON lines to standard output; the first command is `load`. When standard input closes, the process ends
at once.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from bench.measure.generation.backend import Checkpoint, Workload, engine
from bench.measure.generation.footprint import footprint
from bench.measure.generation.nvml import Gpu, counter_of, gpu_of
from bench.measure.generation.timing import Local
from bench.measure.memory import importing

Command = dict[str, Any]


def main() -> None:
    """Answer commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints joins standard error
    commands: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    stage = Stage(sys.argv[1])
    while True:
        try:
            answer = {"answer": stage.do(json.loads(commands.get()))}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": type(error).__name__, "message": str(error).strip() or type(error).__name__}
        print(json.dumps(answer), file=answers)


def _read(commands: queue.Queue[str]) -> None:
    for line in sys.stdin:
        commands.put(line)
    os._exit(0)


class Stage:
    """The checkpoint, once it is loaded, and what can be asked of it."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        with suppress(Exception), importing():  # `load` meets it again, and reports it
            engine(backend)
        self._client: Local | None = None
        self._gpu: Gpu | None = None

    def do(self, command: Command) -> Any:
        """The answer to one command; its other fields are arguments."""
        todo: dict[str, Callable[..., Any]] = {
            "load": self.load,
            "generate": self.generate,
            "memory": self.memory,
            "probe": self.probe,
            "processes": self.processes,
            "spread": self.spread,
        }
        arguments = {name: value for name, value in command.items() if name != "do"}
        return todo[command["do"]](**arguments)

    def load(self, checkpoint: dict[str, Any]) -> None:
        wanted = Checkpoint.from_json(checkpoint)
        loaded = engine(self._backend).load(wanted)
        self._gpu = gpu_of(wanted.device)
        self._client = Local(loaded, joules=counter_of(self._gpu))

    def generate(self, work: dict[str, int]) -> Any:
        return asdict(self.client.generate(Workload(**work)))

    def memory(self, work: dict[str, int]) -> Any:
        return asdict(footprint(self.client, Workload(**work)))

    def probe(self, **arguments: Any) -> Any:
        from bench.measure.generation.probe import probe

        return asdict(probe(**arguments))

    def processes(self) -> list[int]:
        """Ids of the processes on the GPU; none without one."""
        return self._gpu.processes() if self._gpu else []

    def spread(self) -> str | None:
        return self.client.backend.spread

    @property
    def client(self) -> Local:
        assert self._client is not None, "load comes first"
        return self._client


if __name__ == "__main__":
    main()
