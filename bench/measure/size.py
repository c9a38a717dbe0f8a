"""Sizes of a checkpoint: parameters, bytes, multiply-accumulates. Tied parameters count once."""

from __future__ import annotations

from itertools import chain

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from bench.errors import LeanboardError
from bench.measure.measurement import Measurement, Resources
from bench.measure.subject import Subject
from bench.model.checkpoint import sizes_of
from bench.model.layers import embedding_of, head_of, shape_of
from bench.record.schema import Metric
from bench.task import SizeTask, Task


def measure(task: Task, spec: SizeTask, subject: Subject, resources: Resources) -> Measurement:
    """All sizes of `subject`; the task's protocol is the sequence length of the multiply-accumulates.

    Raises:
        LeanboardError: the matrix products that run are not those that the config's widths lead to.
    """
    model, seq_len = subject.model, int(task.protocol)
    stored = sizes_of(model, subject.path)
    values = {
        "params.stored": (stored["params.stored"], "parameters"),
        "params.nonzero": (stored["params.nonzero"], "parameters"),
        "params.body": (body_parameters(model), "parameters"),
        "bytes.disk": (stored["bytes.disk"], "bytes"),
        "bytes.resident": (resident_bytes(model), "bytes"),
        f"macs.total@{seq_len}": (macs(model, seq_len), "MACs"),
    }
    return Measurement(
        [Metric(id=id_, value=value, unit=unit, direction="lower", n=1) for id_, (value, unit) in values.items()]
    )


def body_parameters(model: PreTrainedModel) -> int:
    """Parameters outside the embedding and the head: blocks and final norm."""
    ends = {id(p) for p in chain(embedding_of(model).parameters(), head_of(model).parameters())}
    return sum(p.numel() for p in model.parameters() if id(p) not in ends)


def resident_bytes(model: PreTrainedModel) -> int:
    """Bytes of parameters and buffers as they lie in memory."""
    return sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))


def macs(model: PreTrainedModel, seq_len: int) -> int:
    """Multiply-accumulates of one sequence in closed form (`Shape.macs`), checked against the products that run."""
    shape = shape_of(model)
    counted, expected = counted_flops(model, seq_len), 2 * shape.matmul_macs(seq_len)
    if counted != expected:
        raise LeanboardError(
            f"the model runs {counted} floating-point operations in matrix products for {seq_len} tokens, "
            f"but the widths in its config lead to {expected}"
        )
    return shape.macs(seq_len)


def counted_flops(model: PreTrainedModel, seq_len: int) -> int:
    """Operations in matrix products (2 per multiply-accumulate) of one forward pass, by torch's FlopCounterMode.

    The pass runs on the meta device, so it costs no arithmetic; there attention counts as full products, without a
    discount for the causal mask, as in `Shape.matmul_macs`. The angles of the rotary embedding, which some versions of
    transformers make by a product, are left out.
    """
    meta = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    ids = torch.zeros(1, seq_len, dtype=torch.long, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model, meta, (ids,), {"use_cache": True})
    counts = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    return int(counts["Global"] - sum(count for name, count in counts.items() if name.endswith(".rotary_emb")))
