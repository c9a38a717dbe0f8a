"""The number of threads of a worker: it changes speeds, and how sums are rounded."""

from __future__ import annotations

import os


def threads_each(workers: int) -> int:
    """Compute threads of a worker: `OMP_NUM_THREADS` where the user set it, else an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, (os.cpu_count() or 1) // workers)
