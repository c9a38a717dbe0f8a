"""What is otherwise run in a process of its own, in this one, which has all imports."""

import runpy
import sys
import traceback
import warnings
from unittest.mock import patch


def run_module(module: str, *arguments: str) -> str | None:
    """As `bench.process.run_module`."""
    with patch.object(sys, "argv", [module, *arguments]), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported already
        try:
            runpy.run_module(module, run_name="__main__")
        except (Exception, SystemExit) as end:
            return "".join(traceback.format_exception_only(end)).strip().splitlines()[-1].removeprefix("SystemExit: ")
    return None
