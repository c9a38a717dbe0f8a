"""llama.cpp in a process of its own: greedy token ids from a GGUF file, as JSON: `llama_cpp.py FILE NEW` < prompt ids.

Its server's plain interface is asked, since that returns ids; the library's completions return text alone.
"""

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp


def ask(server: xllamacpp.Server, path: str, **body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(server.listening_address + path, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


if __name__ == "__main__":
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers, parameters.warmup = 256, 1, 0, False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds to float16
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    running = xllamacpp.Server(parameters)
    job = json.load(sys.stdin)
    done = ask(
        running,
        "/completion",
        prompt=job["prompt"],
        n_predict=int(sys.argv[2]),
        temperature=0,
        ignore_eos=True,
        return_tokens=True,
        cache_prompt=False,
    )
    tokens = ask(running, "/tokenize", content=job["text"], add_special=False, parse_special=True)["tokens"]
    print("RESULT " + json.dumps({"ids": done["tokens"], "tokens": tokens}))
