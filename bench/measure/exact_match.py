"""Right answers in the model's own words: lm-eval's tasks that generate, and questions with choices asked openly.

A task that generates is lm-eval's own: prompts, ends of answers, filters and metrics. A question with choices is asked
by its own prompt, which does not show them; the rest of the line is the answer. It is right where it is the text of the
right choice, both normalised as for SQuAD.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import punctuation
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from bench.blocks.notice import NOTICE
from bench.errors import UsageError
from bench.measure.chat import chat_of
from bench.measure.greedy import Answerer, Ends
from bench.measure.measurement import Measurement, Resources
from bench.measure.scorer import PackedLM
from bench.measure.stock_tasks import build_requests, build_tasks
from bench.measure.subject import Subject
from bench.protocol import Protocol
from bench.record.schema import Evidence, Metric
from bench.record.shares import share_of
from bench.task import Task
from bench.task_exact_match import CPU_TOKENS, GPU_TOKENS, AnswerTask, OpenTask, filtered

OPEN = {"until": ["\n"], "max_gen_toks": 48, "do_sample": False}
"""Where the answer to a question that is asked openly ends."""
GREEDY = {"do_sample": False, "temperature": 0.0}
KEPT = 120
"""Characters of an answer that a record keeps."""


def measure(task: Task, spec: AnswerTask, subject: Subject, resources: Resources) -> Measurement:
    """The share of right answers among the first `task.limit` items, or all; the record keeps the answers in short.

    Answers that an earlier run left in `resources.answers` are not made again.

    Raises:
        UsageError: lm-eval's task is not there, samples its answers or has no such metric; the tokenizer has no BOS for
            `+bos` or no chat template for `+chat`, or one that fails; the model has no room for the answers.
        DataError: a file of the pack is missing, damaged or not in the form that the stock task reads.
        LeanboardError: the model's logits are not finite.
    """
    protocol = Protocol.parse(task.protocol)
    [stock] = build_tasks(spec, resources.pack, protocol).values()
    lm = subject.scorer.following(resources.on_progress, None, protocol)
    chat = chat_of(lm, protocol)
    requests = _questions(build_requests(stock, task.limit, protocol, chat), stock, spec)
    ends = _ends(_settings(requests[0]), lm, spec)
    before = NOTICE if "notice" in protocol.flags else ""
    prompts = [lm.tok_encode(before + request.args[0])[ends.most - lm.max_length :] for request in requests]
    if not all(prompts):
        raise UsageError(f"task {spec.name}: a prompt has no tokens")
    budget = CPU_TOKENS if subject.model.device.type == "cpu" else GPU_TOKENS
    answerer = Answerer(subject.model, subject.tokenizer, ends, budget)
    answers = answerer.answers(prompts, resources.on_progress, resources.answers)
    bits = _bits(stock, requests, answers)
    texts = {"answer": [_short(text) for text in answers]}
    golds = [_short(_gold(stock, request.doc)) for request in requests]
    texts |= {"gold": golds} if any(golds) else {}
    chosen = {metric: _checked(metric, bits, spec) for metric in spec.metrics}
    evidence = Evidence(items=chosen, texts=texts, notes=chat.notes if chat else [])
    return Measurement([_share(task.metric_id(metric), found) for metric, found in chosen.items()], evidence)


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, words one space apart.

    Source: SQuAD's evaluation script (Rajpurkar et al., 2016).
    """
    plain = "".join(character for character in text.lower() if character not in punctuation)
    return " ".join(word for word in plain.split() if word not in ("a", "an", "the"))


def _questions(requests: Sequence[Instance], stock: ConfigurableTask, spec: AnswerTask) -> list[Instance]:
    """One request for each item."""
    wanted = "multiple_choice" if isinstance(spec, OpenTask) else "generate_until"
    if wanted != stock.OUTPUT_TYPE:
        raise UsageError(f"task {spec.name}: lm_eval: lm-eval's task is of the type {stock.OUTPUT_TYPE}, not {wanted}")
    if stock.config.unsafe_code:
        raise UsageError(f"task {spec.name}: lm-eval runs what the model writes, which is not done here")
    return [request for request in requests if request.idx == 0]


def _settings(request: Instance) -> dict[str, Any]:
    return request.args[1] if request.request_type == "generate_until" else OPEN


def _ends(given: dict[str, Any], lm: PackedLM, spec: AnswerTask) -> Ends:
    """Where answers end, as lm-eval's transformers backend reads the settings of a task."""
    settings = normalize_gen_kwargs(given, lm.max_gen_toks)
    eos = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    until = handle_stop_sequences(settings.pop("until"), eos=eos)
    most = settings.pop("max_gen_toks")
    strange = {name: value for name, value in settings.items() if GREEDY.get(name, ...) != value}
    if strange:
        name, value = next(iter(strange.items()))
        raise UsageError(f"task {spec.name}: lm-eval has it answered with {name} {value}; answers are greedy here")
    if most >= lm.max_length:
        raise UsageError(
            f"task {spec.name}: its answers may have {most} tokens, and the model has room for {lm.max_length}"
        )
    return Ends(tuple(filter(None, until)), most)


def _bits(stock: ConfigurableTask, requests: Sequence[Instance], answers: Sequence[str]) -> dict[str, str]:
    """By metric, '1' for an item that is right, '0' for one that is wrong, '?' where it is neither.

    What each of lm-eval's filters leaves of the answers gives metrics of their own.
    """
    if stock.OUTPUT_TYPE == "multiple_choice":
        golds = [normalised(_gold(stock, request.doc)) for request in requests]
        return {"exact_match": "".join(str(int(normalised(a) == gold)) for a, gold in zip(answers, golds, strict=True))}
    for request, answer in zip(requests, answers, strict=True):
        request.resps.append(answer)
    stock.apply_filters()
    bits: dict[str, str] = {}
    for number, name in enumerate(requests[0].filtered_resps):
        for request in requests:
            for metric, value in stock.process_results(request.doc, [request.filtered_resps[name]]).items():
                ours = filtered(metric, number, name)
                bits[ours] = bits.get(ours, "") + ("1" if value == 1 else "0" if value == 0 else "?")
    return bits


def _gold(stock: ConfigurableTask, doc: Any) -> str:
    """A right answer; nothing where there is none to show."""
    target = stock.doc_to_target(doc)
    if stock.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        target = stock.doc_to_choice(doc)[target]
    first = next(iter(target), "") if isinstance(target, list) else target
    return first if isinstance(first, str) else ""


def _checked(metric: str, bits: dict[str, str], spec: AnswerTask) -> str:
    if metric not in bits:
        raise UsageError(f"task {spec.name}: metrics: lm-eval gives no {metric}; it gives {', '.join(bits)}")
    if "?" in bits[metric]:
        raise UsageError(f"task {spec.name}: lm-eval's {metric} is no share of right items: it has parts of an item")
    return bits[metric]


def _short(text: str) -> str:
    """Without its middle where it is long: what counts often comes last."""
    half, text = KEPT // 2 - 1, text.strip()
    return text if len(text) <= KEPT else f"{text[:half]}…{text[-half:]}"


def _share(metric_id: str, bits: str) -> Metric:
    value, stderr = share_of(bits)
    return Metric(id=metric_id, value=value, unit="fraction", direction="higher", n=len(bits), stderr=stderr)
