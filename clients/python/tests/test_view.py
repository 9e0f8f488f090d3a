"""A job in a cell, without a kernel and a server."""

from __future__ import annotations

from typing import Any

import pytest
from wire import batch, column

from sqlflow._notebook.view import View
from sqlflow.events import JobEnded, Log, Notice, Reconnecting, Rows, State


class Shown:
    """Outputs that keep the log, and ignore the rest."""

    def __init__(self) -> None:
        self.text = ""
        self.frames: list[Any] = []

    def log(self, text: str) -> None:
        self.text += text

    def frame(self, frame: Any) -> None:
        self.frames.append(frame)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None


def log(data: bytes, stream: str = "stderr", step: int = 1, attempt: int = 1) -> Log:
    return Log(position=1, data=data, stream=stream, step=step, attempt=attempt)


def failed(message: str) -> JobEnded:
    return JobEnded(position=2, job="j", state=State.FAILED, cause="STATEMENT_FAILED", message=message)


def test_character_that_is_cut_between_records_is_whole() -> None:
    shown, data = Shown(), "漢é".encode()
    view = View("j", shown)  # type: ignore[arg-type]
    view.show(log(data[:1], "stdout"))
    view.show(log(b"\xff\n", "stdout", attempt=2))
    view.show(log(data[1:4], "stdout"))
    view.show(log(data[4:] + b"\xc3", "stdout"))
    view.show(JobEnded(position=2, job="j", state=State.SUCCEEDED))
    assert shown.text == "\ufffd\n漢é\ufffd"


@pytest.mark.parametrize(
    ("line", "message", "is_dropped"),
    [
        ("no such table: x\n", "no such table: x", True),
        ("locked", "locked; a scratch table could not be dropped", True),
        ("No module named 'x'\n", "the command exited with code 1: No module named 'x'", True),
        ("lock", "locked; step 1 is run again", False),
        ("table: x", "no such table: x", False),
    ],
)
def test_error_is_not_shown_by_the_log_too(line: str, message: str, is_dropped: bool) -> None:
    shown = Shown()
    view = View("j", shown)  # type: ignore[arg-type]
    view.show(log(b"begins\n" + line.encode()))
    view.show(failed(message))
    assert shown.text == "begins\n" + ("" if is_dropped else line)


def test_last_line_is_shown_once_another_record_comes() -> None:
    shown = Shown()
    view = View("j", shown)  # type: ignore[arg-type]
    view.show(log(b"one\ntwo\n"))
    view.show(Reconnecting(position=1, message=""))
    assert shown.text == "one\n", "no record"
    view.show(Notice(position=1, message="", is_warning=False))
    assert shown.text == "one\ntwo\n"
    view.show(log(b"three\n"))
    view.show(log(b"out\n", "stdout"))
    view.show(log(b"a value, "))
    view.leave("continues")
    assert shown.text == "one\ntwo\nthree\nout\na value, "
    view.show(log(b"locked\n"))
    view.show(failed("locked"))
    assert shown.text.endswith("a value, locked\n"), "the beginning of its line was shown"


def test_rows_whose_columns_were_lost_are_shown() -> None:
    shown = Shown()
    view = View("j", shown)  # type: ignore[arg-type]
    view.show(Rows(position=1, columns=None, batch=batch(2, column("int64s", [1, 2]))))
    view.leave("")
    assert [frame.to_dict("list") for frame in shown.frames] == [{"column_1": [1, 2]}]
