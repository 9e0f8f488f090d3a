"""Plots for people."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

MAX_BARS = 20
MAX_NAMED = 5


def bar_plot(ranking: Sequence[tuple[str, float]], title: str) -> tuple[bytes, list[str]]:
    """Draws the largest of some named values as horizontal bars.

    Gives a PNG, and the texts of it that have characters which no font at hand has: they show as boxes.
    """
    # The figure is used without pyplot: no display, no global state, half the import.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(reversed(ranking[:MAX_BARS]))
    labels = [_plain(name) for name, _ in shown]
    families, missing = _fonts([*labels, title])
    # A missing character is told by the caller, once; the library would tell each, with a line of our source.
    with warnings.catch_warnings(), rc_context({"font.family": families}):
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(7, 1.2 + 0.32 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        # By place, not by name: of two equal names one bar would hide the other.
        axes.barh(range(len(shown)), [value for _, value in shown], color="#3b75af")
        axes.set_yticks(range(len(shown)), labels)
        axes.set_title(_plain(title))
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue(), missing


def _plain(text: str) -> str:
    """Keeps `$` from beginning a formula, and a line's end from breaking the layout."""
    return " ".join(text.split()).replace("$", r"\$")


def _fonts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Gives the fonts for some texts, the usual one first, and the texts with characters that none of them has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    families = ["DejaVu Sans"]
    wanted = {ord(character) for text in texts for character in text if character.isprintable()}
    wanted -= set(get_font(findfont(FontProperties(family=families[0]))).get_charmap())
    # Fonts of the image that has this package installed; one that has only boxes for all characters is no help.
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name) if wanted else ():
        if wanted and "Last Resort" not in entry.name and entry.name not in families:
            try:
                found = wanted & set(get_font(entry.fname).get_charmap())
            except (OSError, RuntimeError):
                continue
            if found:
                families.append(entry.name)
                wanted -= found
    return families, [text for text in texts if any(ord(character) in wanted for character in text)]
