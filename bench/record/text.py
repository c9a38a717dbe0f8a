"""A record as the text of a file, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from bench.errors import RecordError
from bench.record.migrate import migrated
from bench.record.schema import RECORD, SCHEMA_VERSION, ArtifactRecord, BaseRecord, MeasureRecord

AnyRecord = ArtifactRecord | MeasureRecord


def render(record: BaseRecord) -> str:
    """The JSON text of a record: sorted keys, one field a line, lists and their elements kept on one line."""
    return _render(record.model_dump(), "") + "\n"


def _render(value: Any, pad: str) -> str:
    inner = pad + "  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{_compact(str(name))}: {_render(value[name], inner)}" for name in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{pad}}}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + _compact(item) for item in value) + f"\n{pad}]"
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def parse(path: Path) -> AnyRecord:
    """The record in a file.

    Raises:
        RecordError: it cannot be read, is damaged, or is no record of ours.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RecordError(f"{path}: is not JSON, damaged or cut off: {one_line(error)}") from error
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:  # true is none
        raise RecordError(f"{path}: field 'schema_version' is missing; not a record of leanboard")
    twice = _duplicates(raw)
    if twice:
        raise RecordError(f"{path}: field '{twice[0]}' is there twice")
    if not raw.endswith(b"\n"):
        raise RecordError(f"{path}: damaged or cut off: the line feed at the end of the file is missing")
    try:
        if data["schema_version"] != SCHEMA_VERSION:
            raw = json.dumps(migrated(data)).encode()
        return RECORD.validate_json(raw, strict=True)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecordError(f"{path}: field '{_field(first)}': {one_line(first['msg'])}") from error


def _duplicates(raw: bytes) -> list[str]:
    """Names that an object of a JSON text has more than once, so that their value is ambiguous."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            found.extend(name for name in names if names.count(name) > 1)

    json.loads(raw, object_pairs_hook=collect)
    return found


def _field(error: ErrorDetails) -> str:
    """The path of the field that a validation error is about, without the union's tag."""
    path = [str(part) for part in error["loc"]]
    if error["type"].startswith("union_tag"):
        return "kind"
    return ".".join(path[1:]) or "status"


def one_line(message: object) -> str:
    return " ".join(str(message).split())
