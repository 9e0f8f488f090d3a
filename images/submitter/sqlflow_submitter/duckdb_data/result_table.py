"""A statement's result table. It becomes visible when it is complete and its attempt has the grant.

The rules are those of `crates/database/src/result_table`: a staging table beside the final one replaces it in one
transaction, and a comment marks what SQLFlow has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlflow_submitter.duckdb_data.arrays import Column, Reread, without_end
from sqlflow_submitter.duckdb_data.session import Session, literal, quote
from sqlflow_submitter.duckdb_data.views import reason
from sqlflow_submitter.errors import UserError, listing

MARKER = "SQLFlow result table "
ATTEMPT = ", attempt "
COUNTED_ROWS = 1_000_000
"""Limit for counting the rows of a replaced table, so that counting stays fast."""
MAX_NAMED = 10
TYPES = {"bool": "BOOLEAN", "int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR"}


class Spec(NamedTuple):
    """A result table, as a statement describes it."""

    name: str
    suffix: str
    """The suffix of the staging table's name. It ends in the number of the attempt."""
    replace: bool
    """Whether the statement has `result.replace = true`."""
    selects: Sequence[str]


class Existing(NamedTuple):
    """An existing object with a table's name."""

    kind: str
    comment: str


class TableName:
    """The name `t`, `s.t` or `d.s.t`, by DuckDB's rules for names without quotes. Parts may be in double quotes."""

    def __init__(self, text: str, session: Session) -> None:
        self.text = text
        *schema, self.name = (part.strip('"') for part in text.split("."))
        ((self.catalog, self.schema),) = session.run("SELECT current_database(), current_schema()")
        if len(schema) == 2:
            self.catalog, self.schema = schema
        elif schema and _has_schema(session, self.catalog, schema[0]):
            self.schema = schema[0]
        elif schema and session.run("SELECT 1 FROM duckdb_databases() WHERE lower(database_name) = lower(?)", schema):
            self.catalog, self.schema = schema[0], "main"
        elif schema:
            self.schema = schema[0]

    def quoted(self, name: str | None = None) -> str:
        return ".".join(map(quote, (self.catalog, self.schema, self.name if name is None else name)))

    def staging(self, suffix: str) -> str:
        return f"{self.name}__{suffix}"

    @property
    def marker(self) -> str:
        """Begins the comment of a table that SQLFlow has made with this name in this place."""
        return f"{MARKER}{self.schema}.{self.name}".lower().replace(MARKER.lower(), MARKER, 1)


def _has_schema(session: Session, catalog: str, schema: str) -> bool:
    query = "SELECT 1 FROM duckdb_schemas() WHERE lower(database_name) = lower(?) AND lower(schema_name) = lower(?)"
    return bool(session.run(query, [catalog, schema]))


def find(session: Session, table: TableName, name: str | None = None) -> Existing | None:
    place = [table.catalog, table.schema, table.name if name is None else name]
    for kind, column in (("table", "table_name"), ("view", "view_name")):
        found = session.run(
            f"SELECT comment FROM duckdb_{kind}s() WHERE lower(database_name) = lower(?) "
            f"AND lower(schema_name) = lower(?) AND lower({column}) = lower(?)",
            place,
        )
        if found:
            return Existing(kind, found[0][0] or "")
    return None


def made_by(table: TableName, existing: Existing) -> str | None:
    """Returns the attempt that made a table; None: SQLFlow has not made it with this name in this place."""
    marker, attempt = table.marker + ATTEMPT, existing.comment
    return attempt.removeprefix(marker) if existing.kind == "table" and attempt.startswith(marker) else None


def check(session: Session, spec: Spec) -> None:
    """Checks, before any work is done, that the result table can be created or replaced.

    Raises:
        UserError: it cannot.
    """
    table = TableName(spec.name, session)
    if not _has_schema(session, table.catalog, table.schema):
        place = spec.name.rpartition(".")[0] or table.schema
        raise UserError(
            f"cannot write table {spec.name}: there is no schema {place}; create it, or choose another name"
        )
    query = "SELECT readonly FROM duckdb_databases() WHERE lower(database_name) = lower(?)"
    if session.run(query, [table.catalog]) == [(True,)] and not session.is_reading:
        raise UserError(f"cannot write table {spec.name}: the database is open to read only (mode=ro)")
    check_replaceable(session, table, spec.selects, replace=spec.replace)


def check_replaceable(session: Session, table: TableName, selects: Sequence[str], *, replace: bool) -> None:
    """Raises UserError if the result table exists and may not be replaced."""
    existing = find(session, table)
    if existing is None:
        return
    if existing.kind != "table":
        raise UserError(f"cannot write table {table.text}: it is a {existing.kind}; choose another name")
    dependents = _dependents(session, table)
    if dependents:
        raise UserError(
            f"cannot write table {table.text}: {', '.join(dependents)} depends on it, so the database cannot replace "
            "it; drop that first, or choose another name"
        )
    if replace:
        return
    is_marked = made_by(table, existing) is not None
    why = _read(session, table, selects) if is_marked else _origin(existing)
    if why is None:
        return
    rows = count(session, table)
    if not is_marked:
        why = f"it exists ({rows}) and {why}"
    raise UserError(
        f"cannot write table {table.text}: {why}; choose another name (WITH result.replace = true replaces it: what it "
        f"holds now, {rows}, is lost)"
    )


def _read(session: Session, table: TableName, selects: Sequence[str]) -> str | None:
    places = (table.catalog, table.schema)
    return next(filter(None, (reason(session, select, places, table.name) for select in selects)), None)


def _origin(existing: Existing) -> str:
    if not existing.comment.startswith(MARKER):
        return "this release of SQLFlow did not make it"
    name = existing.comment.removeprefix(MARKER).rpartition(ATTEMPT)[0]
    return f"it was copied, moved or renamed: SQLFlow made it as {name}"


def _dependents(session: Session, table: TableName) -> list[str]:
    found = session.run(
        "SELECT DISTINCT table_name FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' "
        "AND lower(database_name) = lower(?) AND lower(referenced_table) = lower(?) AND lower(table_name) <> lower(?)",
        [table.catalog, table.name, table.name],
    )
    return [f"a foreign key of table {name}" for (name,) in found]


def count(session: Session, table: TableName) -> str:
    """Returns the number of rows of a table, in words."""
    query = f"SELECT count(*) FROM (SELECT 1 FROM {table.quoted()} LIMIT {COUNTED_ROWS + 1})"
    ((rows,),) = session.run(query)
    if rows > COUNTED_ROWS:
        return f"more than {COUNTED_ROWS} rows"
    return "1 row" if rows == 1 else f"{rows} rows"


class ResultTable:
    """A staging table that is being filled, on a connection of its own, which works while the other one reads."""

    def __init__(self, session: Session, spec: Spec) -> None:
        self.session = session
        self.table = TableName(spec.name, session)
        self._spec = spec
        self._staging = self.table.quoted(self.table.staging(spec.suffix))
        self._columns: list[str] = []
        self._passthrough: list[int] = []
        self._computed: list[str] = []
        self.clear()

    def create(
        self,
        select: str,
        described: Sequence[Column],
        passthrough: Sequence[tuple[int, str]],
        computed: Sequence[tuple[str, str]],
    ) -> None:
        """Creates the staging table, with columns of the select and computed columns after them.

        Args:
            select: the select.
            described: its columns.
            passthrough: the columns that the table has unchanged, with the place in the select and the new name.
            computed: names and kinds of the computed columns.
        """
        self._columns = [name for _, name in passthrough] + [name for name, _ in computed]
        self._passthrough = [place for place, _ in passthrough]
        kept = [f"c{place} AS {quote(name)}" for place, name in passthrough]
        own = [f"CAST(NULL AS {TYPES[kind]}) AS {quote(name)}" for name, kind in computed]
        source = ""
        if passthrough:
            names = ", ".join(f"c{place}" for place in range(len(described)))
            source = f" FROM ({without_end(select)}\n) AS sqlflow_select({names})"
        self.session.run(f"CREATE TABLE {self._staging} AS SELECT {', '.join(kept + own)}{source} WITH NO DATA")
        mark = self.table.marker + ATTEMPT + self._spec.suffix.lower()
        self.session.run(f"COMMENT ON TABLE {self._staging} IS {literal(mark)}")

    def insert(self, batch: Any, begin: int, rows: int, copies: int, computed: dict[str, Any]) -> None:
        """Adds rows: columns of the select from a batch of DuckDB's, and computed ones.

        Args:
            batch: the batch as DuckDB has sent it; None: the table has no columns of the select.
            begin: the first of its rows.
            rows: the number of its rows.
            copies: the number of rows for each of them.
            computed: an array of numpy for each computed column.
        """
        connection = self.session.connection
        kept = [f"kept.c{place}" for place in self._passthrough]
        values = ", ".join([*kept, *(f"own.{name}" for name in computed)])
        # Its columns have the types of the select again, by the casts of INSERT.
        columns = ", ".join(map(quote, self._columns))
        with self.session.errors():
            connection.register("sqlflow_own", computed)
            try:
                source = "sqlflow_own AS own"
                if kept:
                    connection.register("sqlflow_kept", Reread(batch))
                    part = f"SELECT * FROM sqlflow_kept LIMIT {rows} OFFSET {begin}"
                    if copies > 1:
                        part = (
                            f"SELECT part.* FROM (SELECT *, row_number() OVER () AS n FROM ({part})) AS part "
                            f"CROSS JOIN range({copies}) ORDER BY part.n"
                        )
                    source = f"({part}) AS kept POSITIONAL JOIN {source}"
                connection.execute(f"INSERT INTO {self._staging} ({columns}) SELECT {values} FROM {source}").fetchall()
            finally:
                connection.unregister("sqlflow_own")
                if kept:
                    connection.unregister("sqlflow_kept")

    def replaced(self) -> str | None:
        """Returns what is lost when the old table is replaced, in words.

        None: there is no old table.
        """
        if find(self.session, self.table) is None:
            return None
        old = [it.name for it in self.session.describe(f"SELECT * FROM {self.table.quoted()}")]
        kept = {name.lower() for name in self._columns}
        indexes = self.session.run(
            "SELECT index_name FROM duckdb_indexes() WHERE lower(database_name) = lower(?) "
            "AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)",
            [self.table.catalog, self.table.schema, self.table.name],
        )
        lost = [f"index {name}" for (name,) in indexes] + [f"column {it}" for it in old if it.lower() not in kept]
        more = f"; lost with it: {listing(lost, MAX_NAMED)}" if lost else ""
        return f"({count(self.session, self.table)}){more}"

    def publish(self) -> None:
        """Checks the old table again, and replaces it. To be called after the grant."""
        session, table = self.session, self.table
        session.run("BEGIN")
        try:
            check_replaceable(session, table, (), replace=self._spec.replace)
            session.run(f"DROP TABLE IF EXISTS {table.quoted()}")
            session.run(f"ALTER TABLE {self._staging} RENAME TO {quote(table.name)}")
        except UserError:
            session.run("ROLLBACK")
            raise
        session.run("COMMIT")

    def clear(self) -> None:
        """Drops the staging tables of this attempt and of earlier attempts of the same step."""
        drop_leftovers(self.session, self.table, self._spec.suffix)


def drop_leftovers(session: Session, table: TableName, suffix: str) -> None:
    step, _, attempt = suffix.rpartition("_")
    suffixes = [f"{step}_{number}" for number in range(1, int(attempt) + 1)] if attempt.isdigit() else [suffix]
    for each in suffixes:
        session.run(f"DROP TABLE IF EXISTS {table.quoted(table.staging(each))}")


def clean_up(session: Session, name: str, suffix: str, granted_attempt: int | None) -> str | None:
    """Drops the staging tables of all attempts of a step. Idempotent.

    Returns a line on whether an attempt that was killed after its grant has replaced the result table. It has not if
    its staging table exists.
    """
    table = TableName(name, session)
    report = None
    if granted_attempt is not None:
        report = _report(session, table, f"{suffix.rpartition('_')[0]}_{granted_attempt}")
    drop_leftovers(session, table, suffix)
    return report


def _report(session: Session, table: TableName, own: str) -> str:
    if find(session, table, table.staging(own)) is not None:
        return f"table {table.text} was not replaced: the statement ended before that"
    unknown = f"it is not known whether table {table.text} was replaced"
    existing = find(session, table)
    if existing is None:
        return f"{unknown}: there is no table of this name now"
    made = made_by(table, existing)
    if made is None:
        return f"{unknown}: what has this name now was not made by SQLFlow"
    if made == own.lower():
        return f"table {table.text} was replaced: it holds the statement's result"
    return f"table {table.text} does not hold the statement's result, but that of {made}"
