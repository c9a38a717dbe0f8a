"""The style that all plots share, and settings that make their bytes the same everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INK, QUIET, GRID = "#1b1f24", "#59636e", "#e4e7eb"
DASHES = (0, (4, 3))


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure of `width` × `height` inches with one set of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def settled(figure: Any) -> Any:
    """`figure` with its final layout."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)  # a placeholder would have every save draw twice
    return figure


def dark(colour: str) -> str:
    """`colour` dark enough for text on white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{int(0.62 * channel):02x}" for channel in channels)


def plain(text: str) -> str:
    """`text` on one line, short enough for a title, with `$` escaped."""
    text = " ".join(text.split()).replace("$", r"\$")
    return text if len(text) <= 48 else text[:47] + "…"


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults (whatever the user has set), and ours on top."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "leanboard",
                "svg.fonttype": "path",
                "figure.dpi": 160,
                "savefig.dpi": "figure",
                "font.family": "DejaVu Sans",
                "font.size": 9,
                "text.color": INK,
                "axes.edgecolor": QUIET,
                "axes.labelsize": 10,
                "axes.titlesize": 12,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "grid.color": GRID,
                "grid.linewidth": 0.8,
                "xtick.color": QUIET,
                "ytick.color": QUIET,
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
                "legend.frameon": False,
                "legend.fontsize": 9,
                "text.parse_math": False,
                "axes.formatter.useoffset": False,
            }
        )
        yield


def log_scale(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis from `low` to `high`, in plain numbers while they are short."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.12g}" if 1e-4 < value < 1e6 else f"{value:g}"))
    axis.set_minor_locator(LogLocator(subs=()))


def rendered(figure: Any, format_: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None} if format_ == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=format_, metadata=metadata, facecolor="white")
    return buffer.getvalue()
