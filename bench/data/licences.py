"""The licences of the data pack's datasets, as their authors state them; check them before you pass data on."""

from __future__ import annotations

from bench.data.datasets import DATASETS
from bench.data.rendered import RENDERED

NOT_STATED = "not stated"

LICENCES = {
    "alpaca_cleaned": "CC BY-NC 4.0",
    "alpaca_en_demo": "CC BY-NC 4.0",
    "arc_challenge": "CC BY-SA 4.0",
    "arc_easy": "CC BY-SA 4.0",
    "bookcorpus": NOT_STATED,
    "boolq": "CC BY-SA 3.0",
    "c4": "ODC-BY",
    "c4_demo": "ODC-BY",
    "cb": NOT_STATED,
    "commonsense_qa": "MIT",
    "copa": "BSD-2-Clause",
    "coqa": "that of each passage",
    "csqa": "MIT",
    "drop": "CC BY-SA 4.0",
    "glue_cola": NOT_STATED,
    "glue_mrpc": NOT_STATED,
    "glue_rte": NOT_STATED,
    "glue_sst2": NOT_STATED,
    "gsm8k": "MIT",
    "hellaswag": "MIT",
    "humaneval": "MIT",
    "ifeval": "Apache-2.0",
    "jeopardy": NOT_STATED,
    "lambada_openai": "CC BY 4.0",
    "lambada_passages": "CC BY 4.0",
    "math": "MIT",
    "mbpp": "CC BY 4.0",
    "mmlu": "MIT",
    "naturalqs": "CC BY-SA 3.0",
    "nq_open": "CC BY-SA 3.0",
    "openbookqa": "Apache-2.0",
    "piqa": "AFL-3.0",
    "ptb": "LDC, for members",
    "sciq": "CC BY-NC 3.0",
    "slimpajama": "that of each source",
    "social_iqa": NOT_STATED,
    "socialiqa": NOT_STATED,
    "squad": "CC BY-SA 4.0",
    "trivia_qa": NOT_STATED,
    "wikitext2_raw": "CC BY-SA 3.0",
    "winogrande": "CC BY",
}


def licence_of(ref: str) -> str:
    """The licence of a file that Leanboard knows where to find; '' of any other, whatever its name begins with."""
    if ref not in DATASETS and ref not in RENDERED:
        return ""
    dataset = ref.partition("/")[0]
    known = [name for name in LICENCES if dataset == name or dataset.startswith(f"{name}_")]
    return LICENCES[max(known, key=len)] if known else ""
