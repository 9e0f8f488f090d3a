"""Output of a cell: in a notebook, pieces that are updated in place; in a terminal, lines."""

from __future__ import annotations

import html
import sys
import uuid
from typing import Any, Protocol

from sqlflow._notebook.media import mimebundle

LOG_SHOWN = 64 * 1024
"""Characters of a job's log that are shown; the beginning is dropped."""

CELL_SHOWN = 300
"""Characters of a text that are shown in a table."""
PANDAS_CELL = 50
"""What pandas shows of them, unless the user has changed it."""


class Bar(Protocol):
    """A progress bar."""

    def show(self, phase: str, done: int, total: int | None, unit: str, note: str) -> None: ...
    def close(self) -> None: ...


class Outputs(Protocol):
    """Where a job is shown."""

    def status(self, text: str, tone: str = "dim") -> None:
        """Replaces the line about the job's state."""

    def line(self, text: str, tone: str = "plain") -> None:
        """Adds a line. Tones: `plain`, `dim`, `warning`."""

    def log(self, text: str) -> None:
        """Adds output of the job's programs."""

    def show_log(self, failed: bool) -> None:
        """Shows the log up to here; after a failure, opened."""

    def frame(self, frame: Any) -> None:
        """Shows a DataFrame."""

    def media(self, media_type: str, data: bytes) -> None:
        """Shows a picture or other content."""

    def curves(self, png: bytes | None, text: str) -> None:
        """Replaces the curves of this training; None: they are complete."""

    def bar(self) -> Bar:
        """A new progress bar."""


BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}{postfix}]"
ENDLESS_FORMAT = "{desc}: {n_fmt} {unit} [{elapsed}{postfix}]"
"""While the total is not known."""
DRAWINGS = 200
"""How often a bar is drawn at most, beside ten times a second."""


class Piece:
    """One output that is replaced in place."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._is_shown = False

    def show(self, bundle: dict[str, Any]) -> None:
        from IPython.display import display

        display(bundle, raw=True, display_id=self._id, update=self._is_shown)  # type: ignore[no-untyped-call]
        self._is_shown = True


class Tqdm:
    """A progress bar of tqdm. In a notebook without the note: its line would not fit, and the curves show the same."""

    def __init__(self, in_notebook: bool):
        self._in_notebook = in_notebook
        self._bar: Any = None
        self._phase = ""
        self._drawn = 0
        self._piece = Piece()

    def show(self, phase: str, done: int, total: int | None, unit: str, note: str) -> None:
        if self._bar is None or phase != self._phase:
            self.close()
            self._bar = self._open(phase, total, unit)
            self._phase = phase
            self._drawn = 0
        bar = self._bar
        if total is not None and bar.total != total:
            bar.bar_format = _bar_format(total)
            bar.reset(total)
        if not self._in_notebook:
            bar.set_postfix_str(note, refresh=False)
        # The first value may be that of a job which somebody reads again.
        bar.update(max(done - bar.n, 0))
        # A page has several values, and tqdm skips those that come at once, also the last one.
        if total and (done - self._drawn) * DRAWINGS >= total:
            bar.refresh()
            self._drawn = done

    def close(self) -> None:
        if self._bar is None:
            return
        self._bar.close()
        if hasattr(self._bar, "container"):
            self._bar.container.close()
            # A notebook that is opened again would look for the widget.
            self._piece.show({"text/html": "", "text/plain": ""})
        self._bar = None

    def _open(self, phase: str, total: int | None, unit: str) -> Any:
        options: dict[str, Any] = {"total": total, "desc": phase, "unit": unit, "leave": False}
        options["bar_format"] = _bar_format(total)
        widget = _widget() if self._in_notebook else None
        if widget is None:
            from tqdm import std

            return std.tqdm(file=sys.stdout, **options)
        bar = widget(display=False, **options)
        self._piece.show(bar.container._repr_mimebundle_())
        return bar


def _bar_format(total: int | None) -> str:
    return BAR_FORMAT if total else ENDLESS_FORMAT


def _widget() -> Any:
    """tqdm's bar of a notebook; None if widgets are not installed."""
    try:
        import ipywidgets  # type: ignore[import-untyped]  # noqa: F401
        from tqdm import notebook
    except ImportError:
        return None
    return notebook.tqdm


COLORS = {"plain": "inherit", "dim": "#777777", "warning": "#b26a00", "failed": "#e53935", "good": "#3d8b40"}
"""Legible on the background of light and of dark themes: a kernel does not know which one is used."""
PADDING = "0 0.5em"
"""As far from the edge as other texts of a cell: in a narrow window the edge is hidden."""


class NotebookOutputs:
    """Outputs of a cell in Jupyter."""

    def __init__(self) -> None:
        self._status = Piece()
        self._log = Piece()
        self._text = ""
        self._shown = ("", False)
        self._curves: Piece | None = None

    def status(self, text: str, tone: str = "dim") -> None:
        self._status.show(_line(text, tone))

    def line(self, text: str, tone: str = "plain") -> None:
        Piece().show(_line(text, tone))

    def log(self, text: str) -> None:
        self._text = (self._text + text)[-LOG_SHOWN:]

    def show_log(self, failed: bool) -> None:
        shown = (self._text, failed)
        if not self._text.strip() or shown == self._shown:
            return
        self._shown = shown
        count = len(self._text.splitlines())
        title = f"log, {count} line{'' if count == 1 else 's'}"
        # Closed, unless it is needed: it is rarely what one wants to see in a notebook.
        self._log.show(
            {
                "text/plain": self._text,
                "text/html": (
                    f"<details style='padding:{PADDING}'{' open' if failed else ''}>"
                    f"<summary style='color:{COLORS['dim']};cursor:pointer'>{title}</summary>"
                    f"<pre style='font-size:85%;max-height:24em;overflow:auto;margin:0'>{html.escape(self._text)}</pre>"
                    "</details>"
                ),
            }
        )

    def frame(self, frame: Any) -> None:
        import pandas
        from IPython.display import display

        width = pandas.get_option("display.max_colwidth")
        # By default pandas cuts texts of more than 50 characters, also those of DESCRIBE MODEL.
        with pandas.option_context("display.max_colwidth", CELL_SHOWN if width == PANDAS_CELL else width):
            display(frame)  # type: ignore[no-untyped-call]

    def media(self, media_type: str, data: bytes) -> None:
        Piece().show(mimebundle(media_type, data))

    def curves(self, png: bytes | None, text: str) -> None:
        if png is None:
            self._curves = None
            return
        self._curves = self._curves or Piece()
        self._curves.show({**mimebundle("image/png", png), "text/plain": text})

    def bar(self) -> Bar:
        return Tqdm(in_notebook=True)


class TerminalOutputs:
    """Outputs of IPython in a terminal."""

    def status(self, text: str, tone: str = "dim") -> None:
        print(clean(text))

    def line(self, text: str, tone: str = "plain") -> None:
        print(clean(text))

    def log(self, text: str) -> None:
        print(clean(text), end="", flush=True)

    def show_log(self, failed: bool) -> None:
        return

    def frame(self, frame: Any) -> None:
        print(clean(frame.to_string(max_rows=60)))

    def media(self, media_type: str, data: bytes) -> None:
        if media_type == "text/plain":
            print(clean(data.decode(errors="replace")))
        else:
            print(f"{clean(media_type)}, {len(data)} bytes: shown in a notebook")

    def curves(self, png: bytes | None, text: str) -> None:
        return

    def bar(self) -> Bar:
        return Tqdm(in_notebook=False)


def clean(text: str) -> str:
    """The text without control sequences, by which a job could change what a terminal shows."""
    return "".join(it if it.isprintable() or it in "\n\t" else f"\\x{ord(it):02x}" for it in text)


def _line(text: str, tone: str) -> dict[str, Any]:
    color = COLORS.get(tone, COLORS["plain"])
    return {
        "text/plain": clean(text),
        "text/html": f"<div style='color:{color};white-space:pre-wrap;padding:{PADDING}'>{html.escape(text)}</div>",
    }
