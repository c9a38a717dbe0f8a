"""Generation with vLLM: its scheduler, paged cache and kernels, one engine step for each pass.

The engine runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so that a step is over when it returns. Prefixes
are not cached, text is not decoded, prompts are read whole in one step. A request may have one token more than is asked
for, so that no sequence ends, and gives its blocks back, before it was looked at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bench.data.files import read_json
from bench.errors import UsageError
from bench.measure.generation.backend import Checkpoint, Ids, Workload
from bench.measure.generation.roofline import BYTES
from bench.measure.memory import meter_of
from bench.shape import Shape
from bench.task import GenerationTask

ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
BLOCK = 128
"""Tokens in a block of the cache: the CPU kernel's own size, and a multiple of the GPU kernels'."""


def load(checkpoint: Checkpoint) -> Vllm:
    """Start an engine with room in its cache for the largest workload, and no more.

    Raises:
        UsageError: vLLM is not installed.
    """
    if (why := GenerationTask.why_not_here("vllm")) is not None:
        raise UsageError(why)
    os.environ |= ENVIRONMENT
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    shape = Shape.of(read_json(checkpoint.folder / "config.json"))
    size = BYTES[checkpoint.dtype]
    most = checkpoint.most
    length = most.prompt + most.new + 1
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=str(checkpoint.folder),
            skip_tokenizer_init=True,
            dtype=checkpoint.dtype,
            seed=0,
            enforce_eager=checkpoint.device == "cpu",  # compiling takes minutes there
            max_model_len=length,
            max_num_seqs=most.batch,
            max_num_batched_tokens=max(length, most.batch * most.prompt),
            block_size=BLOCK,
            kv_cache_memory_bytes=cache_room(shape, most, size),
            enable_prefix_caching=False,
            gpu_memory_utilization=0.01,  # of what is free at the start, since the other model may hold the rest
            async_scheduling=False,
            disable_log_stats=True,
        )
    )
    return Vllm(engine, shape, size, checkpoint.device)


def cache_room(shape: Shape, most: Workload, size: int) -> int:
    """Bytes of the blocks that `most` fills, and of two more: vLLM keeps one empty."""
    blocks = most.batch * -(-(most.prompt + most.new + 1) // BLOCK) + 2
    return blocks * BLOCK * sum(2 * block.kv_heads for block in shape.blocks) * shape.head_dim * size


class Vllm:
    """An engine of vLLM as a backend."""

    cache_reserved = True
    spread: str | None = None

    def __init__(self, engine: Any, shape: Shape, size: int, device: str) -> None:
        self._engine = engine
        self._core = engine.engine_core.engine_core
        self._runner = self._core.model_executor.driver_worker.model_runner
        self._device = device
        self._requests: list[str] = []
        self._made = 0
        self.vocab = shape.vocab
        self.weight_bytes = shape.params() * size
        """As they lie in the file: vLLM packs them to suit its kernels."""
        self.passes = 0
        self.meter = meter_of(device)
        self._count_passes()

    def clear(self) -> None:
        self._engine.abort_request(self._requests, internal=True)
        self._requests = []

    def prefill(self, prompt: Ids, new: int) -> list[Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0, max_tokens=new + 1, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
        )
        for ids in prompt:
            self._made += 1
            self._requests.append(self._engine.add_request(str(self._made), {"prompt_token_ids": ids}, sampling))
        return self.decode()

    def decode(self) -> list[Any]:
        outputs: list[Any] = self._engine.step()
        return outputs

    def cached(self) -> list[int]:
        """By the scheduler, which gives a token its place in a block when it is fed."""
        scheduled = self._core.scheduler.requests
        return [scheduled[name].num_computed_tokens for name in self._requests if name in scheduled]

    def cache_bytes(self) -> int:
        """Whole blocks: their share of the memory that the cache of all layers has."""
        manager = self._core.scheduler.kv_cache_manager
        blocks: int = sum(len(ids) for name in self._requests for ids in manager.get_block_ids(name))
        storages = [tensor.untyped_storage() for tensor in self._runner.kv_caches]
        reserved: int = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        total: int = manager.kv_cache_config.num_blocks
        return blocks * reserved // total

    def ids(self, passes: Sequence[list[Any]]) -> Ids:
        names = [name.split("-")[0] for name in self._requests]
        ids: dict[str, list[int]] = {name: [] for name in names}
        for outputs in passes:
            for output in outputs:
                ids[output.request_id] += output.outputs[0].token_ids
        return [ids[name] for name in names]

    def sync(self) -> None:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._device)

    def _count_passes(self) -> None:
        """Where a step has tokens for it, the runner passes them through the model once."""
        execute = self._runner.execute_model

        def counted(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            self.passes += scheduled.total_num_scheduled_tokens > 0
            return execute(scheduled, *args, **kwargs)

        self._runner.execute_model = counted
