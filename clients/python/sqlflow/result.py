"""What a job reported, collected: tables, metrics, models and displays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sqlflow.errors import JobFailed, MissingPackage, NoResultSet, ResultTooLarge
from sqlflow.events import (
    Columns,
    Display,
    Event,
    Gap,
    JobEnded,
    Metrics,
    ModelPublished,
    Rows,
    StatementEnded,
)
from sqlflow.text import shown_table
from sqlflow.values import Batch, Cell, ColumnInfo

if TYPE_CHECKING:
    import pandas
    import pyarrow

MAX_ROWS = 10_000_000
"""Default limit for the rows of a result. Beyond it a notebook's memory would rather end first."""


class Table:
    """A result set. Iterating yields rows as tuples."""

    def __init__(self, columns: Sequence[ColumnInfo], batches: Sequence[Batch] = (), statement: int | None = None):
        self.columns = tuple(columns)
        self.statement = statement
        """Index of the statement that returned it, from 0."""
        self._batches = list(batches)
        self._count = sum(len(batch) for batch in batches)

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def batches(self) -> Sequence[Batch]:
        return self._batches

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Cell, ...]]:
        for batch in self._batches:
            yield from batch

    def append(self, batch: Batch) -> None:
        """Adds rows."""
        self._batches.append(batch)
        self._count += len(batch)

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a DataFrame. Needs pandas (`pip install sqlflow-client[pandas]`).

        Integers and booleans with NULL get pandas' nullable types, dates and times are `datetime64`, and decimals stay
        exact, as `decimal.Decimal`. docs/python-client.md has the table of types.

        Raises:
            MissingPackage: pandas is not installed.
        """
        try:
            from sqlflow.frames import to_pandas
        except ModuleNotFoundError as error:
            raise _missing("a DataFrame", "pandas", error) from None
        return to_pandas(self)

    def to_arrow(self) -> pyarrow.Table:
        """The table as an Arrow table. Needs pyarrow (`pip install sqlflow-client[arrow]`).

        Raises:
            ConversionError: a column has values of several types, as SQLite allows.
            MissingPackage: pyarrow is not installed.
        """
        try:
            from sqlflow.arrow import to_arrow
        except ModuleNotFoundError as error:
            raise _missing("an Arrow table", "pyarrow", error) from None
        return to_arrow(self)

    def __repr__(self) -> str:
        return shown_table(self.column_names, self, len(self))

    def _repr_html_(self) -> str | None:
        try:
            return self.to_pandas()._repr_html_()  # type: ignore[operator, no-any-return]
        except ImportError:
            return None


class Result:
    """What a job reported.

    A program may have several result sets. `tables` has all of them; as a table the result is the last one.

    Attributes:
        job: Id of the job.
        tables: Result sets, in their order.
        metrics: Measurements, in their order.
        models: Models that were published.
        displays: Plots and other content for people.
        rows_affected: Rows changed by all statements together.
        gaps: Places where output is missing. It is empty unless output was lost or removed.
    """

    def __init__(self, job: str):
        self.job = job
        self.tables: list[Table] = []
        self.metrics: list[Metrics] = []
        self.models: list[ModelPublished] = []
        self.displays: list[Display] = []
        self.rows_affected = 0
        self.gaps: list[Gap] = []

    @property
    def table(self) -> Table:
        """The last result set.

        Raises:
            NoResultSet: there is none.
        """
        if not self.tables:
            raise NoResultSet(
                f"cannot make a table of job {self.job}: its program returned no rows; end it with a SELECT"
            )
        return self.tables[-1]

    @property
    def columns(self) -> tuple[ColumnInfo, ...]:
        """The columns of the last result set."""
        return self.table.columns

    def to_pandas(self) -> pandas.DataFrame:
        """The last result set as a DataFrame; see `Table.to_pandas`."""
        return self.table.to_pandas()

    def to_arrow(self) -> pyarrow.Table:
        """The last result set as an Arrow table; see `Table.to_arrow`."""
        return self.table.to_arrow()

    def __iter__(self) -> Iterator[tuple[Cell, ...]]:
        """The rows of the last result set."""
        return iter(self.table)

    def __repr__(self) -> str:
        parts = [f"{len(table)} rows, {len(table.columns)} columns" for table in self.tables]
        parts += [f"model {model.name}" for model in self.models]
        parts += [display.media_type for display in self.displays]
        return f"<Result of job {self.job}: {', '.join(parts) or 'no rows'}>"

    def _repr_html_(self) -> str | None:
        return self.tables[-1]._repr_html_() if self.tables else None


class Collector:
    """Makes a result of events."""

    def __init__(
        self,
        job: str,
        max_rows: int | None,
        too_large: str = "iterate over the job, which keeps one page in memory, or call result(max_rows=None)",
    ):
        self._result = Result(job)
        self._max_rows = max_rows
        self._too_large = too_large
        """What to do about too many rows."""
        self._rows = 0
        self._failure: JobFailed | None = None
        self._is_unnamed = False
        """Whether the columns of the last table were lost."""

    def add(self, event: Event) -> None:
        """Adds an event.

        Raises:
            ResultTooLarge: it has more rows than the limit allows.
        """
        result = self._result
        match event:
            case Columns(columns=columns, statement=statement):
                result.tables.append(Table(columns, statement=statement))
                self._is_unnamed = False
            case Rows():
                self._add_rows(event)
            case StatementEnded(rows_affected=int(rows)):
                result.rows_affected += rows
            case Metrics():
                result.metrics.append(event)
            case ModelPublished():
                result.models.append(event)
            case Display():
                result.displays.append(event)
            case Gap():
                result.gaps.append(event)
            case JobEnded():
                self._failure = event.error()
            case _:
                pass

    def _add_rows(self, rows: Rows) -> None:
        self._rows += len(rows)
        if self._max_rows is not None and self._rows > self._max_rows:
            raise ResultTooLarge(
                f"cannot collect the result of job {self._result.job}: it has more than {self._max_rows:,} rows; "
                f"{self._too_large}"
            )
        if not self._continues_last_table(rows):
            self._result.tables.append(Table(columns_of(rows), statement=rows.statement))
            self._is_unnamed = rows.columns is None
        self._result.tables[-1].append(rows.batch)

    def _continues_last_table(self, rows: Rows) -> bool:
        if not self._result.tables:
            return False
        if rows.columns is not None:
            return True
        last = self._result.tables[-1]
        return self._is_unnamed and (last.statement, len(last.columns)) == (rows.statement, len(rows.batch.columns))

    def result(self) -> Result:
        """The result of a job that has ended.

        Raises:
            JobFailed: it ended without success.
        """
        if self._failure is not None:
            raise self._failure
        return self._result


def _missing(what: str, package: str, error: ModuleNotFoundError) -> MissingPackage:
    return MissingPackage(f"cannot make {what}: {error}; `pip install {package}` in the environment of this Python")


def columns_of(rows: Rows) -> Sequence[ColumnInfo]:
    """The columns of rows. They are numbered if the set's `Columns` were lost to damage."""
    if rows.columns is not None:
        return rows.columns
    return [ColumnInfo(f"column_{index + 1}", "") for index in range(len(rows.batch.columns))]
