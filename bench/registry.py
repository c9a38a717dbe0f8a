"""Finds methods and tasks, and the model families of plug-ins: nothing is listed by hand.

Methods come from the folder `methods` next to `bench`, from the folders and files that `--plugins` or
`LEANBOARD_PLUGINS` names, and from installed packages with an entry point in the group `leanboard.methods`. A plug-in
that cannot be imported is listed with its reason instead of being lost. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from bench.errors import UsageError, unknown
from bench.family import broken, families_in, register
from bench.lm_eval_files import near
from bench.lm_eval_tasks import stock_task
from bench.method import Method, MethodConfig, Preset, Traits
from bench.paths import METHODS
from bench.record.kinds import kind_of, split
from bench.task import NO_LIMIT, TASK_ID, Task, spec_of
from bench.task_accuracy import ChoiceTask
from bench.task_exact_match import OpenTask
from bench.task_files import shared_tasks, task_files
from bench.task_group import MIXED, TaskGroup
from bench.task_kind import TaskSpec
from bench.yamlfile import read_yaml, validated

BUILT_IN = "built in"
PACKAGE = "leanboard_methods"
PRESETS: TypeAdapter[dict[str, Preset]] = TypeAdapter(dict[str, Preset])


@dataclass(frozen=True)
class MethodEntry:
    """A method that was found: its class, and where it came from."""

    cls: type[Method]
    origin: str

    @property
    def name(self) -> str:
        return self.cls.name

    @property
    def folder(self) -> Path | None:
        """The package of the method, with its presets and card; None for a single file."""
        module = sys.modules[self.cls.__module__]
        package = module if hasattr(module, "__path__") else sys.modules.get(module.__package__ or "")
        return Path(package.__file__).parent if package is not None and package.__file__ else None

    def presets(self) -> dict[str, Preset]:
        """Its presets by name; every method has `default`: the defaults of its config, no recovery."""
        found = {"default": Preset(description="the defaults of the config")}
        file = self.folder / "presets.yaml" if self.folder else None
        if file is not None and file.exists():
            of_file: dict[str, Preset] = validated(PRESETS, read_yaml(file), file)
            found |= of_file
        return found

    def preset(self, name: str) -> Preset:
        presets = self.presets()
        if name not in presets:
            raise unknown("preset", name, presets, f"method {self.name}")
        return presets[name]

    def config(self, preset: Preset, overrides: dict[str, Any] | None = None) -> MethodConfig:
        """The resolved config: the preset's fields, then `overrides`.

        Raises:
            UsageError: an unknown field or a value out of range.
        """
        return validated(self.cls.Config, preset.config | (overrides or {}), f"method {self.name}: config")

    def card(self) -> str | None:
        """The text of its card.md, if it has one."""
        file = self.folder / "card.md" if self.folder else None
        return file.read_text(encoding="utf-8") if file is not None and file.exists() else None


@dataclass
class Registry:
    """The methods that were found, and the plug-ins that could not be loaded, with the reason."""

    methods: dict[str, MethodEntry] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def method(self, name: str, where: str = "") -> MethodEntry:
        """The method called `name`.

        Raises:
            UsageError: there is none (with a suggestion), or its plug-in could not be loaded (with the reason).
        """
        if name in self.methods:
            return self.methods[name]
        if name in self.broken:
            raise UsageError(f"method '{name}' cannot be loaded: {self.broken[name]}")
        raise unknown("method", name, self.methods, where)

    def add(self, source: str, origin: str, load: Callable[[], Any]) -> None:
        """Import a plug-in and add its methods and families; one that fails is listed as broken."""
        try:
            loaded = load()
            found = list(_methods_in(loaded))
            families = [] if isinstance(loaded, type) else list(families_in(loaded))
            if not found and not families:
                raise TypeError("it defines no subclass of bench.method.Method and no bench.family.Family")
            for family in families:
                register(family)
            for cls in found:
                _check(cls)
                if cls.name in self.methods:
                    raise TypeError(f"method '{cls.name}' exists already, from {self.methods[cls.name].origin}")
                self.methods[cls.name] = MethodEntry(cls, origin)
        except Exception as error:  # a plug-in may fail in any way; it is listed, and the others go on
            self.broken[source] = f"{origin}: {type(error).__name__}: {error}"


def load_registry(plugins: Sequence[Path] = ()) -> Registry:
    """All methods of the package, of `plugins` and `LEANBOARD_PLUGINS`, and of installed packages.

    A plug-in path is a file, a package, or a folder of both.

    Raises:
        UsageError: there is nothing at a plug-in path.
    """
    registry = Registry()
    for path in _children(METHODS):
        registry.add(path.stem, BUILT_IN, partial(_load_built_in, path.stem))
    named = [Path(p) for p in os.environ.get("LEANBOARD_PLUGINS", "").split(os.pathsep) if p]
    once = {path.resolve(): path for path in [*named, *plugins]}  # errors name a path as the user wrote it
    for root in once.values():
        for path in _plugins_at(root):
            registry.add(path.stem, str(path), partial(_load_file, path))
    for point in entry_points(group="leanboard.methods"):
        registry.add(point.name, f"package {point.dist.name if point.dist else point.value}", point.load)
    registry.broken |= {name: f"family, {why}" for name, why in broken().items()}
    return registry


def share_plugins(plugins: Sequence[Path]) -> None:
    """Let all processes that this one starts load `plugins` too: their models may be of a plug-in's family."""
    named = os.environ.get("LEANBOARD_PLUGINS", "")
    paths = dict.fromkeys([*(str(path.resolve()) for path in plugins), *filter(None, named.split(os.pathsep))])
    os.environ["LEANBOARD_PLUGINS"] = os.pathsep.join(paths)


def load_tasks() -> dict[str, TaskSpec | TaskGroup]:
    """Every task and group by name: built in, of `--tasks` and `LEANBOARD_TASKS`, of installed packages.

    Raises:
        UsageError: a file does not fit the schema, or its name is that of another task.
    """
    return _load_tasks(tuple(shared_tasks()))


@cache
def _load_tasks(shared: tuple[Path, ...]) -> dict[str, TaskSpec | TaskGroup]:
    found: dict[str, tuple[Path, TaskSpec | TaskGroup]] = {}
    for file in task_files():
        spec = spec_of(read_yaml(file), file)
        if spec.name != file.stem:
            raise UsageError(f"{file}: name: '{spec.name}' is not the file's name")
        if spec.name in found:
            raise UsageError(f"{file}: name: a task '{spec.name}' exists already, in {found[spec.name][0]}")
        found[spec.name] = (file, spec)
    for file, spec in found.values():
        if isinstance(spec, OpenTask):
            _check_choice(spec, found, file)
    return {name: spec for name, (_, spec) in found.items()}


def _check_choice(spec: OpenTask, known: Mapping[str, tuple[Path, TaskSpec | TaskGroup]], file: Path) -> None:
    """Raises UsageError where the choice of an open task is no metric of a task with choices."""
    task, metric, _ = split(spec.choice)
    tasks = {name: other for name, (_, other) in known.items() if isinstance(other, ChoiceTask)}
    if task not in tasks:
        raise unknown("task with choices", task, tasks, f"{file}: choice")
    if metric not in tasks[task].metrics:
        raise unknown(f"metric of task {task}", metric, tasks[task].metrics, f"{file}: choice")


def task_groups() -> list[TaskGroup]:
    """The groups among the tasks."""
    return [spec for spec in load_tasks().values() if isinstance(spec, TaskGroup)]


def chance_of(task_id: str) -> float | None:
    """The score of guessing on an accuracy task; None where the task is of another kind or not known."""
    spec = load_tasks().get(task_id.partition("@")[0])
    return spec.chance if isinstance(spec, ChoiceTask) else None


def tasks_named(text: str, limit: int | None = None, where: str = "") -> list[Task]:
    """The tasks that a task id, metric id or group name stands for ('piqa', 'wikitext2@128/limit4', 'commonsense7').

    A name that is none of `load_tasks` may be that of a task of lm-eval ('swag', 'wic@0shot+nobos').
    `limit` is used where `text` has none of its own.

    Raises:
        UsageError: no such task, or a protocol that it does not know.
    """
    before = f"{where}: " if where else ""
    if NO_LIMIT.search(text):
        raise UsageError(f"{before}'{text}': the limit is not a number from 1 to 999999999")
    match = TASK_ID.match(text)
    if match is None:
        raise UsageError(f"{before}'{text}' is not a task id such as piqa or wikitext2@2048")
    known = load_tasks()
    name, items = match["name"], int(match["limit"]) if match["limit"] else limit
    if match["metric"]:
        name = kind_of(f"{name}.{match['metric']}").task or name
    spec = known.get(name) or stock_task(name)
    if spec is None:
        raise unknown("task", name, {*known, *near(name)}, where)
    if isinstance(spec, TaskGroup):
        return _tasks_of(spec, match["protocol"], items, where or f"group {name}")
    limited = items if spec.has_limit else None
    protocols = spec.protocols_of(match["protocol"])
    return [Task(spec.with_tasks(protocol, known), protocol, limited) for protocol in protocols]


def _tasks_of(group: TaskGroup, protocol: str | None, limit: int | None, where: str) -> list[Task]:
    """Its members; flags that follow `mixed` are added to each one's own protocol."""
    chosen = f"@{protocol}" if protocol else ""
    if group.is_mixed:
        asked, plus, flags = (protocol or MIXED).partition("+")
        if asked != MIXED:
            raise UsageError(f"{where}: protocol '{protocol}': its tasks have their own protocols")
        chosen = plus + flags
    return [task for member in group.members for task in tasks_named(member + chosen, limit, where)]


def _plugins_at(root: Path) -> list[Path]:
    if (root.suffix == ".py" and root.is_file()) or (root / "__init__.py").is_file():
        return [root.resolve()]
    if not root.is_dir():
        raise UsageError(f"--plugins: {root} is not a folder or a Python file")
    return _children(root)


def _children(root: Path) -> list[Path]:
    """Plug-ins directly below `root`: packages and single files, names starting with '_' or '.' left out."""
    return sorted(
        p
        for p in root.iterdir()
        if not p.name.startswith(("_", ".")) and ((p / "__init__.py").exists() or p.suffix == ".py")
    )


def _load_built_in(name: str) -> ModuleType:
    """Import a built-in method in a package of our own, so that a user's `methods` cannot hide it."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(METHODS)]
    sys.modules.setdefault(PACKAGE, package)
    return importlib.import_module(f"{PACKAGE}.{name}")


class _Source(SourceFileLoader):
    """Compiles the source anew each time: bytecode on disk counts as current after an edit within its second."""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("no bytecode")


def _load_file(path: Path) -> ModuleType:
    """Import a file or package of a plug-in folder under a name of its own."""
    name = f"leanboard_plugins.{path.stem}"
    file, inner = path, None
    if path.is_dir():
        file, inner = path / "__init__.py", [str(path)]
        finder = FileFinder(str(path), (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES))
        sys.path_importer_cache[str(path)] = finder
    spec = importlib.util.spec_from_file_location(
        name, file, loader=_Source(name, str(file)), submodule_search_locations=inner
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _methods_in(loaded: Any) -> Iterator[type[Method]]:
    if isinstance(loaded, type):
        yield loaded
        return
    for value in vars(loaded).values():
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == loaded.__name__:
            yield value


def _check(cls: type[Method]) -> None:
    """Check the class attributes that the contract requires."""
    for attribute, kind in (("name", str), ("version", str), ("traits", Traits)):
        if not isinstance(getattr(cls, attribute, None), kind):
            raise TypeError(f"{cls.__name__}.{attribute} must be a {kind.__name__}")
    if not TASK_ID.match(cls.name) or not cls.name.replace("_", "").isalnum():
        raise TypeError(f"{cls.__name__}.name '{cls.name}' must be lower-case letters, digits and '_'")
    if inspect.isabstract(cls):
        raise TypeError(f"{cls.__name__} does not implement compress()")
    for field_name, info in cls.Config.model_fields.items():
        if info.is_required() or not info.description:
            raise TypeError(f"{cls.__name__}.Config.{field_name} needs a default and a description")
