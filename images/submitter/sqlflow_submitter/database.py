"""The user's database, as the data process serves it: selects, result tables and checks of the step's statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.link import Link, from_cell, to_cell
from sqlflow_submitter.values import Batch, ColumnInfo, Kind, ResultSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sqlflow_submitter.step import Query

MAX_ROWS_BYTES = 16 * 1024 * 1024
"""Size of the computed columns in one request."""

KINDS = {
    "bool": Kind.BOOL,
    "int": Kind.INT,
    "float": Kind.FLOAT,
    "blob": Kind.BLOB,
    "decimal": Kind.DECIMAL,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMP,
    "instant": Kind.TIMESTAMP_UTC,
}


class Computed(NamedTuple):
    """A computed column of a result table."""

    name: str
    kind: Kind
    """BOOL, INT, FLOAT or TEXT."""
    values: Sequence[Any] | None = None
    """The possible values. Rows then have the place of their value, as uint32. Otherwise they have int64 or float64."""


class Effects(NamedTuple):
    """What functions and triggers of a statement may do."""

    may_change_names: bool
    calls_functions: bool


class Routines(NamedTuple):
    """What routines of the database may do."""

    may_change_names: bool
    """Whether some routine or trigger may change names."""
    has_event_triggers: bool


class Database:
    """The database. Each method may raise the errors of the database.

    Raises:
        UserError: the database rejected the statement.
        DatabaseUnavailable: the connection was lost, or the database is locked.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._writes: _Writes | None = None

    @cached_property
    def dialect(self) -> str:
        """`sqlite`, `mysql`, `postgresql` or `duckdb`."""
        return str(self._link.ask("dialect"))

    def describe(self, query: Query) -> list[ColumnInfo]:
        """Returns the columns of a select without executing it."""
        return _columns(self._link.ask({"describe": query.to_json()}))

    def sample(self, query: Query, column: str, of_type: str | None = None) -> list[Any]:
        """Returns some values of a column that are not NULL. None are found if the select cannot be read.

        `of_type`: in SQLite: the type of the values.
        """
        cells = self._link.ask({"sample": {"query": query.to_json(), "column": column, "of_type": of_type}})
        return list(map(from_cell, cells))

    def check(self, statement: int, *, may_drop: bool) -> None:
        """Checks a later standard statement, which is not executed.

        `may_drop`: whether an earlier statement may drop tables.
        """
        self._link.ask({"check": {"statement": statement, "syntax_only": False, "may_drop": may_drop}})

    def check_syntax(self, statement: int) -> None:
        """Checks the syntax of a later standard statement, which is not executed."""
        self._link.ask({"check": {"statement": statement, "syntax_only": True, "may_drop": False}})

    def check_select(self, query: Query) -> None:
        """Checks the syntax of a select."""
        self._link.ask({"check_select": query.to_json()})

    def set(self, statement: int) -> bool:
        """Changes a setting as a later statement will do, in a session for checks.

        Returns False, and changes nothing, if that would change more than the session.
        """
        return bool(self._link.ask({"set": {"statement": statement}}))

    def effects(self, statement: int) -> Effects:
        """Returns what functions and triggers of a statement may do."""
        return Effects(**self._link.ask({"effects": {"statement": statement}}))

    def depends(self, statement: int, names: Sequence[str]) -> bool:
        """Returns whether a statement depends, through a view or function, on one of these tables.

        Names are in lower case.
        """
        return bool(self._link.ask({"depends": {"statement": statement, "names": list(names)}}))

    @cached_property
    def routines(self) -> Routines:
        return Routines(**self._link.ask("routines"))

    def check_result(self, statement: int) -> None:
        """Checks that the result table of a statement can be created or replaced."""
        self._link.ask({"check_result": {"statement": statement}})

    def start_reading(self, select: str) -> None:
        """Executes a select of the step's statement, given by its name. The data process reads ahead of this one.

        `rows_read` must follow, without another request before.
        """
        self._link.send({"read": select})

    def rows_read(self, on_rows: Callable[[int], None] = lambda rows: None) -> ResultSet:
        """Returns the rows that the data process reads. They can be read once.

        `on_rows`: called with the number of rows that it has read.
        """
        from sqlflow_submitter.column_file import FileResultSet

        name, columns = self._link.answer()
        if name != "column_file":
            raise _unexpected(name)
        return FileResultSet(columns, self._link.descriptor(), self._sizes(on_rows))

    def _sizes(self, on_rows: Callable[[int], None]) -> Iterator[int]:
        while True:
            match self._link.answer():
                case "rows", {"rows": rows, "bytes": size}:
                    on_rows(rows)
                    yield size
                case "end", _:
                    return
                case name, _:
                    raise _unexpected(name)

    def stream(self, max_rows: int) -> ResultSet:
        """Executes the select of the step's statement. Its batches can be read once."""
        self._link.send({"stream": {"max_rows": max_rows}})
        name, columns = self._link.answer()
        if name != "columns":
            raise _unexpected(name)
        return _Stream(
            [ColumnInfo(it["name"], it["database_type"], KINDS.get(it["kind"])) for it in columns], self._link
        )

    def write(self, passthrough: Sequence[tuple[int, str]], computed: Sequence[Computed], copies: int = 1) -> None:
        """Creates the staging table of the step's statement.

        Args:
            passthrough: columns of the select that it has unchanged, with the place in the select and the new name.
            computed: the computed columns after them.
            copies: the number of rows for each row of the select.
        """
        columns = [
            {"name": it.name, "kind": NAMES[it.kind], "values": it.values if it.values is None else list(it.values)}
            for it in computed
        ]
        self._link.ask(
            {"write": {"passthrough": [list(it) for it in passthrough], "computed": columns, "copies": copies}}
        )
        self._writes = _Writes(computed, copies)

    def rows(self, rows: int, columns: Sequence[NDArray[Any]]) -> None:
        """Writes computed columns, to rows of the current batch if the table has columns of the select.

        Args:
            rows: number of rows of the select, or of the table if it has no columns of the select.
            columns: an array for each computed column, with `copies` values for each row.
        """
        assert self._writes is not None, "the table was created"
        for part, data in self._writes.parts(rows, columns):
            self._link.send({"rows": {"rows": part, "bytes": len(data)}}, data)

    def show(self, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> None:
        """Sends computed rows to the client, given by column."""
        values = [list(map(to_cell, column)) for column in columns]
        self._link.ask({"show": {"columns": list(names), "values": values}})

    def publish(self, line: str) -> None:
        """Has the result table published when this process has succeeded.

        `line`: what to print then.
        """
        self._link.ask({"publish": {"line": line}})


def _unexpected(answer: str) -> SubmitterError:
    return SubmitterError(f"cannot read the select: the data process answered {answer}")


def _columns(answer: Any) -> list[ColumnInfo]:
    return [ColumnInfo(it["name"], it["database_type"], KINDS.get(it["kind"])) for it in answer]


NAMES = {Kind.BOOL: "bool", Kind.INT: "int", Kind.FLOAT: "float", Kind.TEXT: "text"}


class _Stream(ResultSet):
    def __init__(self, columns: list[ColumnInfo], link: Link) -> None:
        self.columns = columns
        self._link = link

    def batches(self) -> Iterator[Batch]:
        from sqlflow_submitter.column_file import read_stream

        while True:
            name, _ = self._link.answer()
            if name == "end":
                return
            yield from read_stream(self._link.descriptor())
            self._link.send("taken")


class _Writes:
    """Encodes computed columns."""

    def __init__(self, computed: Sequence[Computed], copies: int) -> None:
        self._types = ["<u4" if it.values is not None else "<i8" if it.kind is Kind.INT else "<f8" for it in computed]
        self._copies = copies
        width = sum(int(it[-1]) for it in self._types) * copies
        self._rows = max(1, MAX_ROWS_BYTES // max(1, width))

    def parts(self, rows: int, columns: Sequence[NDArray[np.generic]]) -> Iterator[tuple[int, bytes]]:
        for begin in range(0, rows, self._rows):
            end = min(rows, begin + self._rows)
            part = slice(begin * self._copies, end * self._copies)
            typed = (column[part].astype(it) for column, it in zip(columns, self._types, strict=True))
            yield end - begin, b"".join(it.tobytes() for it in typed)
