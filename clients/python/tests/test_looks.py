"""What a notebook shows is legible in light and in dark themes."""

from __future__ import annotations

import pytest

from sqlflow._notebook.media import mimebundle
from sqlflow._notebook.outputs import COLORS, Tqdm


def luminance(color: str) -> float:
    """Relative luminance, as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
@pytest.mark.parametrize("tone", [tone for tone in COLORS if tone != "plain"])
def test_tone_is_legible_on_the_background_of_either_theme(tone: str, background: str) -> None:
    lighter, darker = sorted((luminance(COLORS[tone]), luminance(background)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 4


def test_plot_without_a_background_gets_a_white_one() -> None:
    assert "background:white" in mimebundle("image/svg+xml", b"<svg/>")["text/html"]


def test_bar_shows_the_last_of_values_that_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Tqdm(in_notebook=False)
    for done in (1, 2, 3):
        bar.show("train", done, 40, "rounds", "train-rmse 0.5")
    assert "3/40 rounds [" in capsys.readouterr().out
    bar.close()
