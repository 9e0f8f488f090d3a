"""Curves of a training: one chart for each metric, with a line for each data set."""

from __future__ import annotations

import io
from collections.abc import Sequence

from sqlflow.events import Metrics

MAX_POINTS = 2_000
"""Points of a line at most. Beyond it every second one is dropped: a chart has fewer pixels."""
MAX_LINES = 32
COLORS = ("#3b75af", "#d1603d", "#519e3e", "#8d69b8", "#84584e", "#c57db8")


class Curves:
    """The measurements of a training, round by round."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[list[int], list[float]]] = {}
        self._stride = 1
        self.kept: int | None = None
        """The round whose model is kept, if that is not the last one."""

    def add(self, metrics: Metrics) -> None:
        """Adds the measurements of a round. Final ones are not part of a curve."""
        if metrics.step is None:
            return
        if metrics.kept:
            self.kept = metrics.step
            return
        if metrics.step % self._stride:
            return
        for name, value in metrics.values.items():
            if name in self._lines or len(self._lines) < MAX_LINES:
                steps, values = self._lines.setdefault(name, ([], []))
                steps.append(metrics.step)
                values.append(value)
        if any(len(steps) > MAX_POINTS for steps, _ in self._lines.values()):
            self._thin_out()

    def _thin_out(self) -> None:
        self._stride *= 2
        for name, (steps, values) in self._lines.items():
            kept = [place for place, step in enumerate(steps) if step % self._stride == 0]
            self._lines[name] = ([steps[place] for place in kept], [values[place] for place in kept])

    @property
    def is_shown(self) -> bool:
        """Whether there is a line: one point is none."""
        return any(len(steps) > 1 for steps, _ in self._lines.values())

    def groups(self) -> dict[str, list[tuple[str, Sequence[int], Sequence[float]]]]:
        """The lines of each chart: `train-rmse` and `validate-rmse` belong to `rmse`."""
        groups: dict[str, list[tuple[str, Sequence[int], Sequence[float]]]] = {}
        for name, (steps, values) in self._lines.items():
            data, dash, metric = name.partition("-")
            groups.setdefault(metric if dash else name, []).append((data if dash else name, steps, values))
        return groups

    def last(self) -> str:
        """The latest measurements in one line."""
        return "  ".join(f"{name} {values[-1]:.5g}" for name, (_, values) in self._lines.items() if values)

    def png(self) -> bytes:
        """The charts, side by side."""
        # Without pyplot: no global state, and the notebook does not show the figure a second time.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        groups = self.groups()
        figure = Figure(figsize=(max(4.6, 4.2 * len(groups)), 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (metric, lines) in zip(
            figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
        ):
            for place, (data, steps, values) in enumerate(lines):
                label = f"{_literal(data)}  {values[-1]:.4g}"
                axes.plot(steps, values, label=label, color=COLORS[place % len(COLORS)], linewidth=1.6)
            if self.kept is not None:
                axes.axvline(self.kept, color="#888888", linewidth=1, linestyle=":", label=f"kept: {self.kept}")
            axes.set_title(_literal(metric), fontsize=10)
            axes.set_xlabel("round", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def _literal(text: str) -> str:
    """The text as it is: between dollars, matplotlib would read a formula."""
    return text.replace("$", r"\$")
