"""Whether a calibration text is long enough, found without torch, so that no weights are read in vain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.calibration import JOINT
from bench.data.pack import Pack
from bench.data.store import file_sha256, remembered
from bench.data.texts import documents
from bench.errors import DataError

if TYPE_CHECKING:
    from bench.suite import TextSource

Count = Callable[[str], int]
"""The tokens of a text, without special ones."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
SPECIAL = 2
"""How many tokens a tokenizer may add to a text; no other token stands for less than a byte of it."""
CHARACTERS = 12
"""Of a long text no more than this many characters for each token wanted are encoded, if they are enough."""


def shortfall(source: TextSource, config: Mapping[str, Any], folder: Path) -> str | None:
    """Why `source` lacks the windows that a method asks for: what it has, and what is asked for.

    `config` says how many windows of how many tokens (`calibration_samples`, `seq_len`), `folder` holds the tokenizer.
    None where they are there, where the method does not say what it needs, or where that cannot be told for certain:
    without a tokenizer, only bytes are counted.

    Raises:
        DataError: the file of the source is missing or damaged, or has no such column; the tokenizer's is damaged.
    """
    n, seq_len = config.get("calibration_samples"), config.get("seq_len")
    if not isinstance(n, int) or not isinstance(seq_len, int):
        return None
    file = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    asked = [source.model_dump(mode="json"), Pack.default().fingerprint(source.data), n, seq_len]
    known = json.dumps([*asked, file_sha256(file) if file else None])
    has, total = map(int, remembered(f"windows|{known}", lambda: _counted(source, n, seq_len, file)).split("/"))
    if source.sampler == "joined":
        return f"{n} windows of {seq_len} tokens are asked for, and it has {has} tokens" if has <= seq_len else None
    if has < n:
        return f"{n} windows of {seq_len} tokens are asked for, and {has} of its {total} documents are that long"
    return None


def _counted(source: TextSource, n: int, seq_len: int, file: Path | None) -> str:
    """Documents that are long enough (no more than `n`) and all of them; of a joined text its tokens and `seq_len`."""
    count, texts = _count_of(file), documents(source)
    if source.sampler == "joined":
        return f"{_tokens(JOINT.join(texts), seq_len + 1, count)}/{seq_len}"
    has = 0
    able = [text for text in texts if len(text.encode()) + SPECIAL >= seq_len]
    for text in sorted(able, key=len, reverse=True):
        if has == n:
            break
        has += _tokens(text, seq_len, count) >= seq_len
    return f"{has}/{len(texts)}"


def _count_of(file: Path | None) -> Count | None:
    """Counts the tokens that a tokenizer's file gives; raises `DataError` where it is damaged."""
    try:
        return None if file is None else _reader_of(file)
    except Exception as error:  # a file of somebody else can be wrong in any way
        raise DataError(f"{file}: not a tokenizer's file ({type(error).__name__})") from error


def _reader_of(file: Path) -> Count:
    if file.name == "tokenizer.json":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))
    return lambda text: len(processor.encode(text))


def _tokens(text: str, enough: int, count: Count | None) -> int:
    """How many tokens `text` has at most; of a long text a count that is `enough` will do."""
    if count is None:
        return len(text.encode()) + SPECIAL
    part = text[: CHARACTERS * enough]
    found = count(part) + SPECIAL
    return found if found >= enough or len(part) == len(text) else count(text) + SPECIAL
