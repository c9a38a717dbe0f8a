"""lm-eval's tasks on files of the data pack, and requests rendered by others in the form of such tasks.

Prompts, choices, metrics and the choice of examples stay lm-eval's own; only where rows come from is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, singledispatch
from itertools import islice
from typing import Any

import lm_eval.utils
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from pyarrow import Table

from bench.data.pack import Pack
from bench.errors import DataError, LeanboardError, UsageError, first_line
from bench.lm_eval_files import examples_of, stock_yaml
from bench.measure.chat import Chat
from bench.measure.rendered import CHOICES, CONTEXT, GOLD, read_rendered
from bench.measure.scorer import quiet
from bench.protocol import Protocol
from bench.task_accuracy import ChoiceTask, LmEvalTask, PromptsTask

EXAMPLES = "examples"
ZERO_SHOT = Protocol("0shot")

lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)
"""lm-eval compiles its templates anew for each row, which takes ten times as long as filling them in."""


class FirstN(ContextSampler):  # type: ignore[misc]
    """lm-eval's `first_n`, without comparing every example with every item."""

    def sample(self, n: int, eval_doc: Any = None, **_: Any) -> list[Any]:
        return list(islice((row for row in self.df if row != eval_doc), n))


class StockTask(ConfigurableTask):  # type: ignore[misc]
    """lm-eval's task with these settings and rows; `problem` names the files where it cannot read them.

    Raises:
        DataError: a row is not as the task reads it, when it is built or when its requests are.
    """

    def __init__(self, config: Mapping[str, Any], data: DatasetDict, problem: str) -> None:
        self._problem = problem
        with quiet(), self._reading():
            super().__init__(config={**config, "custom_dataset": lambda **_: data})

    def build_all_requests(self, **options: Any) -> None:
        with quiet(), self._reading():
            super().build_all_requests(**options)
            if self.OUTPUT_TYPE == "multiple_choice" and not callable(self.config.process_results):
                for number, doc in {request.doc_id: request.doc for request in self.instances}.items():
                    self._check_gold(number, doc)

    def _check_gold(self, number: int, doc: Any) -> None:
        """A right answer that is none of the choices: lm-eval would count the item as wrong."""
        gold, choices = (self.doc_to_text if self.multiple_input else self.doc_to_target)(doc), self.doc_to_choice(doc)
        for one in gold if isinstance(gold, list) else [gold]:
            if one not in (choices if isinstance(one, str) else range(len(choices))):
                raise ValueError(f"row {number}: the right answer, {one!r}, is none of its {len(choices)} choices")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except LeanboardError:
            raise
        except Exception as error:  # lm-eval and datasets raise anything here
            raise DataError(f"{self._problem} ({first_line(error)})") from error


def build_requests(
    task: ConfigurableTask, limit: int | None, protocol: Protocol = ZERO_SHOT, chat: Chat | None = None
) -> list[Instance]:
    """lm-eval's requests (context, continuation) for the first `limit` items, always with the same examples.

    `chat` renders prompts where the protocol asks for it: as lm-eval's command line does by default, each example is a
    turn of the user and one of the assistant.
    """
    turns = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": chat} if chat else {}
    task.set_fewshot_seed(protocol.seed)
    task.build_all_requests(limit=limit, rank=0, world_size=1, **turns)
    return list(task.instances)


@singledispatch
def build_tasks(spec: ChoiceTask, pack: Pack, protocol: Protocol = ZERO_SHOT) -> dict[str, ConfigurableTask]:
    """The task that lm-eval asks for each part of the data, by the name of the part; '' where there are no parts.

    Raises:
        UsageError: lm-eval has no such task, or there are not so many examples.
        DataError: a file of the pack is missing, damaged or not in the form that the task reads.
    """
    raise NotImplementedError(f"{type(spec).__name__} has no tasks of lm-eval")


@build_tasks.register
def _(spec: LmEvalTask, pack: Pack, protocol: Protocol = ZERO_SHOT) -> dict[str, ConfigurableTask]:
    refs = dict(spec.splits)
    if spec.examples in spec.data(str(protocol)):
        refs[EXAMPLES] = spec.examples
    tables = {split: pq.read_table(pack.path(ref)) for split, ref in refs.items()}
    for split, ref in refs.items():
        if not tables[split].num_rows:
            raise DataError(f"{pack.path(ref)}: has no rows")
    read = ", ".join(str(pack.path(ref)) for ref in refs.values())
    if spec.by is None:
        return {"": _stock(spec, spec.lm_eval, tables, protocol, read)}
    [(by, named)] = spec.by.items()
    missing = [ref for split, ref in refs.items() if by not in tables[split].column_names]
    if missing:
        raise DataError(f"{pack.path(missing[0])}: column '{by}' is missing, which names the parts of {spec.name}")
    found = {}
    for split, ref in refs.items():
        if any(not isinstance(part, str) or not part for part in pc.unique(tables[split][by]).to_pylist()):
            raise DataError(f"{pack.path(ref)}: column '{by}' does not hold a text in every row")
    for part in pc.unique(tables[_evaluated(spec)][by]).to_pylist():
        rows = {split: table.filter(pc.equal(table[by], part)) for split, table in tables.items()}
        found[part] = _stock(spec, spec.lm_eval.removesuffix(named) + part, rows, protocol, read)
    return found


@build_tasks.register
def _(spec: PromptsTask, pack: Pack, protocol: Protocol = ZERO_SHOT) -> dict[str, ConfigurableTask]:
    ref = spec.texts[protocol.asked]
    rows = read_rendered(pack, ref)
    gap = " " if all(text.startswith(" ") for row in rows for text in row[CHOICES]) else ""
    for row in rows:  # what stands between prompt and answer is none of the answer, whose length counts for acc_norm
        row[CHOICES] = [text.removeprefix(gap) for text in row[CHOICES]]
    config = {
        "task": spec.name,
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": CONTEXT,
        "doc_to_choice": CHOICES,
        "doc_to_target": GOLD,
        "target_delimiter": gap,
    }
    data = DatasetDict(test=Dataset.from_list(rows))
    return {"": StockTask(config, data, f"{pack.path(ref)}: not as a rendered task reads it")}


def _stock(spec: LmEvalTask, name: str, tables: Mapping[str, Table], protocol: Protocol, read: str) -> ConfigurableTask:
    data = DatasetDict({split: Dataset(table) for split, table in tables.items()})
    shots = protocol.shots
    config = {**_loaded(spec, name), "task": spec.name, "dataset_kwargs": None, "num_fewshot": shots}
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    evaluated = _evaluated(spec)
    roles = dict.fromkeys(("training_split", "validation_split", "test_split", "fewshot_split"))
    roles["test_split" if config.get("test_split") else "validation_split"] = evaluated
    asks = examples_of(load_yaml(stock_yaml(name), resolve_func=False))
    if shots and asks.split:
        role = asks.role if asks.role == "fewshot_split" else "training_split"  # which lm-eval looks for first
        roles[role] = evaluated if asks.is_evaluated else EXAMPLES
    own = dict(config.get("fewshot_config") or {})
    own |= {"split": roles["fewshot_split"]} if "split" in own else {}
    own |= {"sampler": FirstN} if "first_n" in protocol.flags else {}
    config |= roles | {"fewshot_config": own or None}
    task = StockTask(config, data, f"{read}: not as lm-eval's '{name}' reads it")
    if shots:
        there = len(task.sampler.df) - (task.fewshot_cfg.split == task.config.test_split)  # not the item itself
        if there < shots:
            raise UsageError(f"task {spec.name}: protocol '{protocol}': there are {there} examples for an item")
    return task


def _evaluated(spec: LmEvalTask) -> str:
    """The split whose items are asked."""
    return next(split for split in ("test", "validation", *spec.splits) if split in spec.splits)


def _loaded(spec: LmEvalTask, name: str) -> dict[str, Any]:
    """The settings of lm-eval's task, with its functions."""
    try:
        with quiet():
            settings: dict[str, Any] = load_yaml(stock_yaml(name))
    except ImportError as error:
        raise UsageError(f"task {spec.name}: lm-eval's '{name}' needs another package ({first_line(error)})") from error
    return settings
