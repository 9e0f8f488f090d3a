"""Tokens, and where they are stored."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import sqlflow
from sqlflow import tokens
from sqlflow.tokens import MAX_REMEMBERED, TokenStore


def test_cursor_is_split_from_the_token() -> None:
    assert tokens.split("sqlflow00ff.42") == ("sqlflow00ff", 42)
    assert tokens.split("01jabc") == ("01jabc", None)
    assert tokens.at("sqlflow00ff.42", 0) == "sqlflow00ff.0"
    assert tokens.is_token("sqlflow00ff.42") and not tokens.is_token("01jabc.42") and not tokens.is_token("sqlflow")
    assert tokens.is_job_id("01jabcdefghjkmnpqrstvwxyz0.7") and not tokens.is_job_id("01jabc")


def test_job_is_found_by_id_beginning_and_last(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "state" / "sqlflow")
    assert store.find("last") is None
    store.add("01abcd1", "sqlflow01")
    store.add("01abce2", "sqlflow02")
    assert store.find("01abcd1") == "sqlflow01"
    assert store.find("01abce") == "sqlflow02"
    assert store.find("last") == "sqlflow02"
    assert store.find("02abc") is None and store.find("") is None
    with pytest.raises(sqlflow.UsageError, match="too short"):
        store.find("01a")
    with pytest.raises(sqlflow.UsageError, match="2 jobs have ids that begin with '01ab': 01abce2, 01abcd1;"):
        store.find("01ab")


def test_file_is_private_and_bounded(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "sqlflow")
    store.add("j0", "sqlflow00")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (store.folder, store.file)]
    assert modes == [0o700, 0o600]
    store.file.write_text("".join(f"k{index} sqlflow01\n" for index in range(MAX_REMEMBERED)))
    store.add("new", "sqlflow02")
    assert store.find("k0") is None and store.find("k1") == "sqlflow01" and store.find("new") == "sqlflow02"


def test_unknown_job_is_an_error_with_a_fix(home: Path) -> None:
    with pytest.raises(sqlflow.UsageError, match="give the token"):
        tokens.token_of("01abc")
    whole = "01jabcdefghjkmnpqrstvwxyz0"
    assert tokens.token_of(whole) == whole, "the server takes the owner's id in place of the token"
