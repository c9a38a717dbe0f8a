"""Read YAML and check it against a schema, with one clear sentence where it does not fit."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bench.errors import UsageError

T = TypeVar("T")

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, but ten times as fast; not in every build


class Strict(BaseModel):
    """A part of a file or record: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(file: Path) -> Any:
    """The content of `file` (safe YAML).

    Raises:
        UsageError: the file is missing or is not YAML.
    """
    try:
        return Loader(file.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise UsageError(f"{file}: not valid YAML (nested too deeply)") from None


def validated(schema: type[T] | TypeAdapter[T], data: Any, where: str | Path) -> T:
    """`data` as `schema`.

    Raises:
        UsageError: it does not fit; the sentence names `where` and the field, and the nearest field for an unknown one.
    """
    adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error, schema)}") from error


def first_problem(error: ValidationError, schema: Any = None) -> str:
    """The first problem of a validation error as 'field: what is wrong'."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"]) or "top level"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), _fields_at(schema, problem["loc"][:-1]), n=1)
        return f"{field}: unknown key" + (f"; did you mean '{near[0]}'?" if near else "")
    return f"{field}: {message}"


def _fields_at(schema: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model that `loc` leads to, as far as it can be followed."""
    found = _models_in(schema)
    for part in loc:
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in found if part in model.model_fields]
        inner = [model for field in fields for model in _models_in(field.annotation)]
        found = inner or found
    return [name for model in found for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]
