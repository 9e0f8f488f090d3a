"""`%sqlflow` and `%%sqlflow` with a client that is not connected: no kernel, no server."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from wire import batch, column

from sqlflow.errors import Error, ResultTooLarge, ServerUnavailable
from sqlflow.events import Columns, Event, Rows
from sqlflow.magic import SQLFlowMagics, load_ipython_extension
from sqlflow.values import ColumnInfo


class FakeClient:
    """A client of a server that answers as a test wants it."""

    def __init__(self, server: str | None):
        self.address = SimpleNamespace(server=server)
        self.error: Exception | None = None

    def jobs(self, limit: int = 50) -> list[Any]:
        if self.address.server == "down:1":
            raise ServerUnavailable("no answer")
        return []

    def run(self, program: str, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return TornJob()


class TornJob:
    """A job whose reading fails after two rows."""

    id = "j"

    def events(self, after: int) -> Iterator[Event]:
        columns = (ColumnInfo("a", ""),)
        yield Columns(position=1, columns=columns)
        yield Rows(position=2, columns=columns, batch=batch(2, column("int64s", [11, 22])))
        raise ServerUnavailable("no answer")


@pytest.fixture
def magics(monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLFlowMagics]:
    monkeypatch.setattr("sqlflow.magic.connect", FakeClient)
    yield SQLFlowMagics(InteractiveShell())


def client(magics: SQLFlowMagics, server: str | None = None) -> FakeClient:
    """The client of a server, as the commands get it."""
    return magics._client(SimpleNamespace(server=server))  # type: ignore[arg-type, return-value]


def test_only_an_open_quote_is_an_error_of_the_line(magics: SQLFlowMagics) -> None:
    with pytest.raises(UsageError, match="cannot read 'attach \"x': No closing quotation"):
        magics.sqlflow('attach "x')
    client(magics).error = ValueError("a defect")
    with pytest.raises(ValueError, match="a defect"):
        magics.sqlflow("", "SELECT 1")


def test_connect_takes_an_address(magics: SQLFlowMagics, capsys: pytest.CaptureFixture[str]) -> None:
    magics.sqlflow("connect db:1 --datasource flowers")
    assert (magics._server, magics._datasource) == ("db:1", "flowers")
    magics.sqlflow("connect --server db:2")
    assert (magics._server, magics._datasource) == ("db:2", "flowers")
    assert capsys.readouterr().out == "connected to db:1\nconnected to db:2\n"


def test_help_is_shown_for_the_flag_and_the_question_mark(
    magics: SQLFlowMagics, capsys: pytest.CaptureFixture[str]
) -> None:
    magics.sqlflow("--help")
    magics.sqlflow("attach --help")
    said = capsys.readouterr().out
    assert said.count("%sqlflow attach [JOB] [NAME]") == 2
    assert "%sqlflow attach [JOB] [NAME]" in (magics.sqlflow.__doc__ or "")


def test_extension_names_the_packages_that_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("pandas", "tqdm") else name)
    with pytest.raises(UsageError, match="run %pip install pandas tqdm"):
        load_ipython_extension(None)


def test_settings_remain_if_the_server_does_not_answer(magics: SQLFlowMagics) -> None:
    magics.sqlflow("connect db:1 --datasource flowers")
    with pytest.raises(ServerUnavailable):
        magics.sqlflow("connect down:1 --datasource trees")
    assert (magics._server, magics._datasource) == ("db:1", "flowers")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "arguments are required: command"),
        ("connect a:1 b:1", "unrecognized arguments: b:1"),
        ("connect a:1 --server b:1", "not allowed with argument"),
        ("connect --quiet", "unrecognized arguments: --quiet"),
        ("attach last found --datasource flowers", "unrecognized arguments: --datasource flowers"),
        ("attach --max-rows 5", "give the variable's name"),
        ("cancel last found", "unrecognized arguments: found"),
        ("jobs last", "unrecognized arguments: last"),
    ],
)
def test_argument_without_a_meaning_is_an_error(line: str, why: str, magics: SQLFlowMagics) -> None:
    with pytest.raises(UsageError, match=why):
        magics.sqlflow(line)


@pytest.mark.parametrize(
    ("line", "error", "why"),
    [
        ("found", ServerUnavailable, "no answer"),
        ("found --max-rows 1", ResultTooLarge, "more than 1 rows; give a larger --max-rows, or no variable"),
    ],
)
def test_error_while_reading_ends_the_view_with_a_hint(
    line: str, error: type[Error], why: str, magics: SQLFlowMagics, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=why):
        magics.sqlflow(line, "SELECT 1")
    said = capsys.readouterr().out
    assert "22" in said, "what was read"
    assert "%sqlflow attach j" in said
