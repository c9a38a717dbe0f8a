"""vLLM in one process: generates greedily from each folder of a JSON job on standard input, into the file it names."""

import gc
import json
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.model_executor.models import registry

# Most of the time of a short start goes into these two.
registry._run_in_subprocess = lambda look: look()  # a process to look at each class
gc.collect = lambda generation=2: 0  # seven times, over all that vLLM and torch have imported


def generate(folder: str, prompts: list[list[int]], new: int) -> dict[str, Any]:
    llm = LLM(
        folder,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=4,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=32 << 20,
        seed=0,
    )
    sampling = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, logprobs=1, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
    got = [output.outputs[0] for output in outputs]
    architecture = llm.llm_engine.vllm_config.model_config.architecture
    llm.llm_engine.engine_core.shutdown()
    return {
        "architecture": architecture,
        "ids": [list(out.token_ids) for out in got],
        "logprobs": [[step[i].logprob for i, step in zip(out.token_ids, out.logprobs, strict=True)] for out in got],
    }


if __name__ == "__main__":
    job = json.load(sys.stdin)
    Path(job["out"]).write_text(json.dumps([generate(folder, job["prompts"], job["new"]) for folder in job["folders"]]))
