"""Columns of a select that are copied to a result table unchanged, in the database's own types."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlflow_submitter.connect.database import BATCH_ROWS, Batch, ColumnInfo
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.result_table import ResultTable
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.numbers import value_error


class PassthroughColumns:
    """Some columns of a select, in the order of the select."""

    def __init__(self, described: Sequence[ColumnInfo], exclude: Collection[str]) -> None:
        """
        Args:
            described: the select's columns.
            exclude: names of columns that are not copied, as in the select.

        Raises:
            UserError: the select has a column twice.
        """
        available = [column.name for column in described]
        self.names = [name for name in available if name not in exclude]
        self._places = list(locate("column", self.names, available).values())
        self.columns = [described[place] for place in self._places]

    def insert(
        self, table: ResultTable, batch: Batch, extra: Sequence[Sequence[Any]], rows_before: int, copies: int = 1
    ) -> None:
        """Adds the rows of a batch, with extra columns of raw values after those of the select.

        Args:
            table: the table to fill.
            batch: rows of the select.
            extra: the extra columns, each with `copies` values for each row.
            rows_before: number of rows of the select before this batch.
            copies: how often each row of the select is written. Each insert has at most as many rows as a batch.

        Raises:
            UserError: a text is not UTF-8; the message names its column and row.
        """
        columns = [batch.raw[place] for place in self._places]
        size = max(1, BATCH_ROWS // copies)
        for begin in range(0, batch.rows, size):
            end = min(begin + size, batch.rows)
            passthrough = [[value for value in values[begin:end] for _ in range(copies)] for values in columns]
            try:
                table.insert([*passthrough, *(values[begin * copies : end * copies] for values in extra)])
            except UserError as error:
                if isinstance(error.__cause__, UnicodeEncodeError):
                    raise self._not_utf8(columns, rows_before) from error
                raise

    def _not_utf8(self, columns: Sequence[Sequence[Any]], rows_before: int) -> UserError:
        """Returns the error for the first text of a batch that is not UTF-8. SQLite's driver uses lone surrogates."""
        for name, values in zip(self.names, columns, strict=True):
            for row, value in enumerate(values):
                if isinstance(value, str) and any("\udc80" <= character <= "\udcff" for character in value):
                    shown = value.encode("utf-8", "surrogateescape")
                    return value_error(
                        f"column {name}", rows_before + row + 1, shown, "cannot be written: it is not UTF-8"
                    )
        return UserError("cannot write a text of the select: it is not UTF-8")
