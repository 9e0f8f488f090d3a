"""Plots for people."""

from __future__ import annotations

import io
from collections.abc import Sequence

MAX_BARS = 20


def bar_plot(ranking: Sequence[tuple[str, float]], title: str) -> bytes:
    """Draws the largest of some named values as horizontal bars; gives a PNG."""
    # The figure is used without pyplot: no display, no global state, half the import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(reversed(ranking[:MAX_BARS]))
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh([name for name, _ in shown], [value for _, value in shown], color="#3b75af")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
