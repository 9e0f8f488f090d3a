"""Output of a cell: in a notebook, pieces that are updated in place; in a terminal, lines."""

from __future__ import annotations

import html
import sys
import uuid
from typing import Any, Protocol

from sqlflow._notebook.media import mimebundle

LOG_SHOWN = 64 * 1024
"""Characters of a job's log that are shown; the beginning is dropped."""


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


class Tqdm:
    """A progress bar of tqdm."""

    def __init__(self, in_notebook: bool):
        self._in_notebook = in_notebook
        self._bar: Any = None
        self._phase = ""

    def show(self, phase: str, done: int, total: int | None, unit: str, note: str) -> None:
        if self._bar is None or phase != self._phase:
            self.close()
            self._bar = _tqdm(self._in_notebook)(total=total, desc=phase, unit=f" {unit}", leave=False, file=sys.stdout)
            self._phase = phase
        bar = self._bar
        if total is not None and bar.total != total:
            bar.reset(total)
        bar.set_postfix_str(note, refresh=False)
        # The first value may be that of a job which somebody reads again.
        bar.update(max(done - bar.n, 0))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _tqdm(in_notebook: bool) -> Any:
    from tqdm import std

    if in_notebook:
        try:
            import ipywidgets  # type: ignore[import-untyped]  # noqa: F401
            from tqdm import notebook
        except ImportError:
            return std.tqdm
        return notebook.tqdm
    return std.tqdm


class Piece:
    """One output that is replaced in place."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._is_shown = False

    def show(self, bundle: dict[str, Any]) -> None:
        from IPython.display import display

        display(bundle, raw=True, display_id=self._id, update=self._is_shown)  # type: ignore[no-untyped-call]
        self._is_shown = True


COLORS = {"plain": "inherit", "dim": "#777777", "warning": "#b26a00", "failed": "#e53935", "good": "#3d8b40"}
"""Legible on the background of light and of dark themes: a kernel does not know which one is used."""


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
        # Closed, unless it is needed: it is rarely what one wants to see in a notebook.
        self._log.show(
            {
                "text/plain": self._text,
                "text/html": (
                    f"<details{' open' if failed else ''}><summary style='color:{COLORS['dim']};cursor:pointer'>log, "
                    f"{count} line{'' if count == 1 else 's'}</summary><pre style='font-size:85%;max-height:24em;"
                    f"overflow:auto;margin:0'>{html.escape(self._text)}</pre></details>"
                ),
            }
        )

    def frame(self, frame: Any) -> None:
        from IPython.display import display

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
        "text/html": f"<div style='color:{color};white-space:pre-wrap'>{html.escape(text)}</div>",
    }
