"""Whether the model hub answers: asked once, so that a machine without it fails fast."""

from __future__ import annotations

from functools import lru_cache
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PROBE_SECONDS = 5.0
NO_FRONT_PAGE = (401, 404, 405)
"""What some mirrors say at their root; a proxy that shuts the hub off says 403 or 407."""


def why_no_hub(offline: bool) -> str | None:
    """The reason why the hub cannot be used, or None where it answers."""
    if offline:
        return "offline: the model hub may not be used"
    return None if hub_answers() else "the model hub does not answer"


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """True where the hub answers within 5 s (name look-up included)."""
    from huggingface_hub.constants import ENDPOINT

    answers: list[int] = []
    probe = Thread(target=_ask, args=(ENDPOINT, answers), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return bool(answers) and (answers[0] < 400 or answers[0] in NO_FRONT_PAGE)


def _ask(url: str, answers: list[int]) -> None:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PROBE_SECONDS) as answer:
            answers.append(answer.status)
    except HTTPError as error:
        answers.append(error.code)
    except OSError:
        pass
