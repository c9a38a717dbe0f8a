"""Errors that a user reads: one clear sentence each, naming the file and the field."""

from collections.abc import Iterable
from difflib import get_close_matches


class LeanboardError(Exception):
    """An error with a sentence meant for the user; the command line prints it without a traceback.

    The command line ends with `exit_code`: 1 a check failed, 2 usage (the input is wrong or missing).
    """

    exit_code = 1

    def __str__(self) -> str:
        """One line, even where a name in it has several."""
        return " ".join(super().__str__().splitlines())


class UsageError(LeanboardError):
    """What the user gave (suite, option, path, name) cannot be used."""

    exit_code = 2


class DataError(UsageError):
    """A file of the data pack, a wheel or a checkpoint is missing, damaged or not what it should be."""


class RecordError(LeanboardError):
    """A file under `results/` is not a record of ours, or is damaged."""


class ProtocolMismatch(LeanboardError):
    """Numbers of two protocols would share a column, a cell or a mean."""


class MethodError(LeanboardError):
    """A method broke the contract of `bench.method`."""


class KeyMismatch(LeanboardError):
    """What a worker would compute is not what the key of its cell says."""


class BudgetExceeded(MethodError):
    """A method used more calibration tokens or optimiser steps than it declared."""


class Cancelled(LeanboardError):
    """The run was interrupted while a method was running."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of an error from elsewhere, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """The error for a name that is not known, with the nearest known names as a suggestion."""
    names = sorted(known)
    near = get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(names) or 'none'}."
    prefix = f"{where}: " if where else ""
    return UsageError(f"{prefix}unknown {kind} '{name}'; {hint}")
