"""The answers of finished batches on disk, so that an interrupted task resumes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Answer = tuple[float, bool]
"""Log-probability of a continuation in nats, and whether it is the greedy one."""
Text = tuple[str]
"""What a model wrote."""

SAVE_SECONDS = 5.0
"""At least this long between two lines of the file: what a crash can cost."""


class Answers:
    """Keeps the answers of one measurement in `file`, one line for every few seconds of work.

    Each line is a SHA-256 and a JSON text. The hash also covers the measurement's key and questions: a line that was
    cut off, was damaged or belongs to another measurement does not match it, and is ignored.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        self.earlier_seconds = 0.0
        self._questions = hashlib.sha256()
        self._open: dict[int, Answer | Text] = {}
        self._saved = time.monotonic()

    def load(self, questions: Iterable[tuple[list[int], list[Any]]]) -> dict[int, Any]:
        """The kept answers to these questions, by number: each is an `Answer` or a `Text`.

        A question are the token ids that are read, and those that are scored or where a text ends.

        Sets `earlier_seconds` to the wall time that they took.
        """
        self._questions, self._open = hashlib.sha256(self.key.encode()), {}
        for question in questions:
            self._questions.update(json.dumps(question).encode())
        answers: dict[int, Answer | Text] = {}
        for line in self.file.read_bytes().split(b"\n") if self.file.is_file() else []:
            seal, _, body = line.partition(b" ")
            if seal == self._seal(body):
                seconds, kept = json.loads(body)
                self.earlier_seconds += seconds
                answers |= {number: tuple(answer) for number, *answer in kept}
        self._saved = time.monotonic()
        return answers

    def keep(self, answers: Mapping[int, Answer | Text]) -> None:
        """Add texts, and numbers that are finite; they reach the file once the last line is some seconds old."""
        self._open |= {n: a for n, a in answers.items() if isinstance(a[0], str) or math.isfinite(a[0])}
        seconds = time.monotonic() - self._saved
        if seconds < SAVE_SECONDS:
            return
        body = json.dumps([seconds, [[number, *answer] for number, answer in self._open.items()]]).encode()
        with self.file.open("ab") as file:
            file.write(b"\n" + self._seal(body) + b" " + body)  # a line that was cut off before does not spoil this one
        self._open = {}
        self._saved = time.monotonic()

    def done(self) -> None:
        """Remove the file, once the record is written."""
        self.file.unlink(missing_ok=True)

    def _seal(self, body: bytes) -> bytes:
        line = self._questions.copy()
        line.update(body)
        return line.hexdigest().encode()
