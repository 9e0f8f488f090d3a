"""Plots of results, as PNG images."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

MAX_BARS = 20
MAX_NAMED = 5


def bar_plot(ranking: Sequence[tuple[str, float]], title: str) -> tuple[bytes, list[str]]:
    """Draws the largest of some named values as horizontal bars.

    Returns a PNG, and those of its texts that have characters which no installed font has.
    """
    # Without pyplot, no display and no global state are needed, and the import takes half the time.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(reversed(ranking[:MAX_BARS]))
    labels = [_plain(name) for name, _ in shown]
    families, missing = _fonts([*labels, title])
    # The caller reports missing characters once. The library would warn about each, with a line of this source.
    with warnings.catch_warnings(), rc_context({"font.family": families}):
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(7, 1.2 + 0.32 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        # By position: two bars with the same name would be drawn on top of each other.
        axes.barh(range(len(shown)), [value for _, value in shown], color="#3b75af")
        axes.set_yticks(range(len(shown)), labels)
        axes.set_title(_plain(title))
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue(), missing


def _plain(text: str) -> str:
    """Escapes `$`, which would begin a formula, and joins lines."""
    return " ".join(text.split()).replace("$", r"\$")


def _fonts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the fonts for some texts, the default first, and the texts with characters that no font has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    families = ["DejaVu Sans"]
    wanted = {ord(character) for text in texts for character in text if character.isprintable()}
    wanted -= set(get_font(findfont(FontProperties(family=families[0]))).get_charmap())
    # The installed fonts, without the one that has only a box for every character.
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
