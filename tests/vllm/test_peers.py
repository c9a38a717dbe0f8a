"""vLLM as others start it: lm-eval's command line and the server, in several processes, find our classes."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import torch

from bench.model.checkpoint import load_checkpoint
from tests.artefacts import make
from tests.serve.lm_task import score_of, write_task

pytestmark = pytest.mark.vllm

LIMITS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128, "max_num_seqs": 2}
CACHE = 32 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("everything", "gqa", tmp_path_factory.mktemp("peers") / "everything")


@pytest.fixture
def named(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """With a distribution called `vllm`, which the CPU build is not: lm-eval and the command ask for its version."""
    shim = tmp_path / "shim" / "vllm-0.32.0+cpu.dist-info"
    shim.mkdir(parents=True)
    (shim / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return environment | {"PYTHONPATH": str(shim.parent), "HF_HOME": str(tmp_path / "hf")}


def test_the_command_line_of_lm_eval(folder: Path, named: dict[str, str], tmp_path: Path) -> None:
    task = write_task(tmp_path)
    settings = {"pretrained": folder, "kv_cache_memory_bytes": CACHE, **LIMITS}
    arguments = ",".join(f"{name}={value}" for name, value in settings.items())
    command: list[Any] = [
        sys.executable,
        "-m",
        "lm_eval",
        "--model",
        "vllm",
        "--model_args",
        arguments,
        "--tasks",
        task.stem,
        "--include_path",
        tmp_path,
        "--output_path",
        tmp_path / "out",
        "--batch_size",
        "auto",
    ]
    done = subprocess.run(command, env=named, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(file.read_text())["results"][task.stem]["word_perplexity,none"]
    assert told == pytest.approx(score_of(*load_checkpoint(folder)), rel=1e-3)


@pytest.fixture
def server(folder: Path, named: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--enforce-eager", "--dtype", "float32", "--max-model-len", "128", "--max-num-seqs", "2"]
    command: list[Any] = [
        Path(sys.executable).with_name("vllm"),
        "serve",
        folder,
        *options,
        "--kv-cache-memory-bytes",
        str(CACHE),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    several = named | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    log, url = tmp_path / "log", f"http://127.0.0.1:{port}"
    with log.open("w") as told, subprocess.Popen(command, env=several, stdout=told, stderr=told) as running:
        try:
            wait_for(url, running, log)
            yield url
        finally:
            running.terminate()


def wait_for(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    while running.poll() is None:
        try:
            with urlopen(f"{url}/health"):
                return
        except (URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(log.read_text()[-3000:])


def test_the_server(folder: Path, server: str) -> None:
    prompt, new = [5, 9, 200, 33, 7], 12
    body: dict[str, Any] = {
        "model": str(folder),
        "prompt": prompt,
        "max_tokens": new,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    request = Request(f"{server}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        got = json.load(answer)["choices"][0]["token_ids"]
    model, _ = load_checkpoint(folder)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert got == expected[0, len(prompt) :].tolist()
