"""Prompts as conversations in a model's own chat template."""

from __future__ import annotations

from lm_eval.models.huggingface import HFLM

from bench.errors import UsageError, first_line
from bench.protocol import Protocol, why_no_chat

NO_SYSTEM = "the chat template takes no system message: the description of the task was left out"


class Chat:
    """Renders a conversation as lm-eval does; `notes` says what the template left out of any so far."""

    def __init__(self, lm: HFLM) -> None:
        self._render = lm.apply_chat_template
        self.notes: list[str] = []

    def __call__(self, turns: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of the conversation; where the template takes no system message, without it.

        Raises:
            UsageError: the template fails.
        """
        try:
            text: str = self._render(turns, add_generation_prompt)
        except Exception as error:  # a template is code, and may raise anything
            raise UsageError(f"the tokenizer's chat template fails ({first_line(error)})") from error
        if any(turn["role"] == "system" and turn["content"].strip() not in text for turn in turns):
            self.notes = [NO_SYSTEM]
        return text


def chat_of(lm: HFLM, protocol: Protocol) -> Chat | None:
    """What renders the prompts, where the protocol asks for conversations.

    Raises:
        UsageError: the tokenizer has no chat template.
    """
    if "chat" not in protocol.flags:
        return None
    if why := why_no_chat(lm.tokenizer.chat_template):
        raise UsageError(why)
    return Chat(lm)
