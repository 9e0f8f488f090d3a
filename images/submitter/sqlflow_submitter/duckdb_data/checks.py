"""Checks of statements before any work is done."""

from __future__ import annotations

import re
from typing import Any

from sqlflow_submitter.duckdb_data import result_table, views
from sqlflow_submitter.duckdb_data.arrays import Batch, Column, missing, numbers
from sqlflow_submitter.duckdb_data.session import Session
from sqlflow_submitter.duckdb_data.shown_rows import byte_strings
from sqlflow_submitter.duckdb_data.step import Step
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.step import first_word

SAMPLED_ROWS = 100
SAMPLED_BYTES = 4 << 20
"""Maximum size of sampled values; others are left out."""
PLANNED = {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO"}
"""Statements that EXPLAIN checks without executing them."""
CREATION = re.compile(
    r"\s*CREATE\s+(OR\s+REPLACE\s+)?(TEMP(ORARY)?\s+)?(TABLE|VIEW)\s+[\w.]+\s+AS\s+(?=(SELECT|WITH)\b)", re.IGNORECASE
)
"""A creation of a table or view up to its select, which alone is checked: an earlier statement may make the schema."""


class Checks:
    """Answers the submitter's questions about statements."""

    def __init__(self, session: Session, step: Step) -> None:
        self._session = session
        self._step = step
        self._settings: Session | None = None
        """A session with settings of the program; None: there are none."""

    def session(self, statement: int) -> Session:
        """Returns the session for what is asked about a statement."""
        is_own = any(it.index == statement for it in self._step.statements)
        return self._session if is_own or self._settings is None else self._settings

    def answer(self, name: str, content: Any) -> Any:
        """Returns the answer to a request.

        Raises:
            UserError: the database rejects the statement.
            KeyError: it is no check.
        """
        match name:
            case "sample":
                query = content["query"]
                select = self._step.statement(query["statement"]).select(query["select"])
                found = self.session(query["statement"]).sample(select, content["column"], SAMPLED_ROWS)
                return {"values": _cells(found)}
            case "check":
                self._check(content["statement"], syntax_only=content["syntax_only"])
                return "done"
            case "check_select":
                select = self._step.statement(content["statement"]).select(content["select"])
                self.session(content["statement"]).parse(select)
                return "done"
            case "set":
                return {"is_set": self._set(content["statement"])}
            case "effects":
                # DuckDB has no triggers, and its functions are macros, which only read.
                return {"effects": {"may_change_names": False, "calls_functions": False}}
            case "depends":
                statement = self._step.statement(content["statement"])
                found_names = views.reachable(self.session(statement.index), statement.texts())
                return {"depends": not found_names.isdisjoint(content["names"])}
            case "routines":
                return {"routines": {"may_change_names": False, "has_event_triggers": False}}
            case "check_result":
                statement = self._step.statement(content["statement"])
                result_table.check(self.session(statement.index), self._step.result(statement))
                return "done"
        raise KeyError(name)

    def _check(self, index: int, *, syntax_only: bool) -> None:
        statement, session = self._step.statement(index), self.session(index)
        parsed = session.parse(statement.sql)
        if not syntax_only and len(parsed) == 1 and parsed[0].type.name in PLANNED:
            session.plan(statement.sql)
        creation = None if syntax_only or len(parsed) != 1 else CREATION.match(statement.sql)
        if creation is not None:
            select = statement.sql[creation.end() :]
            try:
                is_select = session.is_select(session.parse(select))
            except UserError:
                # A clause of the creation follows, such as WITH NO DATA.
                return
            if is_select:
                # Lines have the same numbers.
                session.plan("\n" * creation.group().count("\n") + select)

    def _set(self, index: int) -> bool:
        """Changes a setting as the program will do. Only the place of names belongs to a session alone."""
        sql = self._step.statement(index).sql
        if first_word(sql) != "USE":
            return False
        if self._settings is None:
            self._settings = self._session.cursor()
        self._settings.run(sql)
        return True


def _cells(found: list[tuple[Column, Batch]]) -> list[Any]:
    cells: list[Any] = []
    size = 0
    for _, batch in found:
        for cell in _values(batch):
            size += len(cell) if isinstance(cell, str) else 8
            if size > SAMPLED_BYTES:
                return cells
            cells.append(cell)
    return cells


def _values(batch: Batch) -> list[Any]:
    (array,), (found,) = batch.arrays, batch.formats
    absent = missing(array)
    if found == "n":
        return []
    if found == "u":
        values: list[Any] = [it.decode() for it in byte_strings(array)]
    elif found == "z":
        values = [{"blob": it.hex()} for it in byte_strings(array)]
    elif found == "b":
        # A sample only says that there is a value.
        values = [True] * array.length
    else:
        values = [{"float": repr(it)} if isinstance(it, float) else it for it in numbers(array)[0].tolist()]
    return [it for place, it in enumerate(values) if absent is None or not absent[place]]


def unsupported(name: str) -> UserError:
    return UserError(f"cannot answer the request {name} of the submitter: this data process does not know it")
