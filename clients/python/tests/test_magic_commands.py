"""`%sqlflow` and `%%sqlflow` with a client that is not connected: no kernel, no server."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from sqlflow.magic import SQLFlowMagics


class FakeClient:
    """A client of a server that answers as a test wants it."""

    def __init__(self, server: str | None):
        self.address = SimpleNamespace(server=server)
        self.error: Exception | None = None

    def run(self, program: str, **options: Any) -> Any:
        assert self.error is not None
        raise self.error


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
