"""Each column type of each database, with a value and with NULL."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from agent import StandInAgent
from in_process import execute
from protos.sqlflow.v1.data_pb2 import Column

DAY = 86_400_000_000


def columns_of(dsn: str, sql: str) -> tuple[list[tuple[str, str]], list[Column]]:
    """Returns the names and types of the head, and the columns of the single batch."""
    with TemporaryDirectory() as folder:
        run = StandInAgent(Path(folder), dsn).run(sql).succeeded()
    (head,) = run.payloads("head")
    (rows,) = run.payloads("rows")
    types = [column_type.database_type for column_type in head.column_types]
    return list(zip(head.column_names, types, strict=True)), list(rows.columns)


def value_of(column: Column) -> tuple[str | None, Any]:
    """Returns the field of a column's oneof, and its first value."""
    kind = column.WhichOneof("values")
    return (kind, getattr(column, kind).values[0]) if kind else (None, None)


POSTGRESQL = [
    ("true::boolean", "boolean", "bools", True),
    ("(-32768)::smallint", "smallint", "int64s", -32768),
    ("2147483647::int", "integer", "int64s", 2147483647),
    ("(-9223372036854775808)::bigint", "bigint", "int64s", -(2**63)),
    ("12345678901234567890.1250::numeric(30,4)", "numeric(30,4)", "decimals", "12345678901234567890.1250"),
    ("1e-20::numeric", "numeric", "decimals", "0.00000000000000000001"),
    ("'NaN'::numeric", "numeric", "decimals", "NaN"),
    ("0.1::float8", "double precision", "doubles", 0.1),
    ("'-Infinity'::float8", "double precision", "doubles", float("-inf")),
    ("1.5::real", "real", "doubles", 1.5),
    (r"E'a\tb\\n😀'::text", "text", "strings", "a\tb\\n😀"),
    ("'ab'::varchar(9)", "character varying(9)", "strings", "ab"),
    ("'ab'::char(3)", "character(3)", "strings", "ab "),
    (r"'\x00ff27'::bytea", "bytea", "blobs", b"\x00\xff'"),
    ("'1969-12-31'::date", "date", "dates", -1),
    ("'infinity'::date", "date", "strings", "infinity"),
    ("'1970-01-02 00:00:00.000001'::timestamp", "timestamp without time zone", "timestamps", DAY + 1),
    ("'1970-01-01 02:00:00+02'::timestamptz", "timestamp with time zone", "timestamps", 0),
    ("'24:00'::time", "time without time zone", "strings", "24:00:00"),
    ("'1 mon 2 days'::interval", "interval", "strings", "1 mon 2 days"),
    ("'{\"a\": [1]}'::jsonb", "jsonb", "strings", '{"a": [1]}'),
    ("'00000000-0000-0000-0000-00000000000a'::uuid", "uuid", "strings", "00000000-0000-0000-0000-00000000000a"),
    ("ARRAY[1,NULL]", "integer[]", "strings", "{1,NULL}"),
    ("'10.0.0.1/8'::inet", "inet", "strings", "10.0.0.1/8"),
    ("B'101'::bit(3)", "bit", "strings", "101"),
    ("'(1,2)'::point", "", "strings", "(1,2)"),
]

MYSQL = [
    ("TINYINT", "-128", "TINYINT", "int64s", -128),
    ("INT UNSIGNED", "4294967295", "INT UNSIGNED", "int64s", 4294967295),
    ("BIGINT", "-9223372036854775808", "BIGINT", "int64s", -(2**63)),
    ("BIGINT UNSIGNED", "18446744073709551615", "BIGINT UNSIGNED", "uint64s", 2**64 - 1),
    ("YEAR", "2024", "YEAR", "int64s", 2024),
    ("BIT(10)", "b'1000000001'", "BIT(10)", "int64s", 513),
    ("BOOLEAN", "TRUE", "TINYINT(1)", "int64s", 1),
    ("DECIMAL(30,4)", "-12345678901234567890.1250", "DECIMAL(30,4)", "decimals", "-12345678901234567890.1250"),
    ("DECIMAL(5,0) UNSIGNED", "7", "DECIMAL(5,0)", "decimals", "7"),
    ("DOUBLE", "0.1", "DOUBLE", "doubles", 0.1),
    ("FLOAT", "1.5", "FLOAT", "doubles", 1.5),
    ("VARCHAR(9)", "'ä😀'", "VARCHAR(9)", "strings", "ä😀"),
    ("CHAR(9) CHARACTER SET latin1", "'ä'", "CHAR(9)", "strings", "ä"),
    ("LONGTEXT", r"'a\tb\\n'", "TEXT", "strings", "a\tb\\n"),
    ("BLOB", "X'00FF27'", "BLOB", "blobs", b"\x00\xff'"),
    ("VARBINARY(3)", "X'00FF27'", "VARBINARY(3)", "blobs", b"\x00\xff'"),
    ("DATE", "'1969-12-31'", "DATE", "dates", -1),
    ("DATETIME(6)", "'1970-01-02 00:00:00.000001'", "DATETIME", "timestamps", DAY + 1),
    ("TIMESTAMP NULL", "'2001-01-01 00:00:00'", "TIMESTAMP", "timestamps", 11323 * DAY),
    ("TIME(1)", "'-838:59:58.5'", "TIME", "strings", "-838:59:58.5"),
    ("ENUM('a','b')", "'b'", "ENUM", "strings", "b"),
    ("SET('a','b')", "'a,b'", "SET", "strings", "a,b"),
    ("JSON", """'{"a": [1]}'""", "TEXT", "strings", '{"a": [1]}'),
]

SQLITE = [
    ("9223372036854775807", "int64s", 2**63 - 1),
    ("0.1", "doubles", 0.1),
    ("9e999", "doubles", float("inf")),
    ("'ä😀'", "strings", "ä😀"),
    ("x'00ff27'", "blobs", b"\x00\xff'"),
    ("date('1970-01-02')", "strings", "1970-01-02"),
]


@pytest.mark.parametrize(("expression", "name", "place", "value"), POSTGRESQL)
def test_postgresql_types_are_decoded(
    postgresql_dsn: str, expression: str, name: str, place: str, value: object
) -> None:
    head, columns = columns_of(postgresql_dsn, f"SELECT {expression} AS v")
    assert head[0] == ("v", name)
    assert value_of(columns[0]) == (place, value)


def test_postgresql_timestamps_with_zone_are_marked(postgresql_dsn: str) -> None:
    _, columns = columns_of(postgresql_dsn, "SELECT now() AS a, now()::timestamp AS b")
    assert [column.timestamps.has_zone for column in columns] == [True, False]


def test_values_of_a_binary_cursor_are_bytes(postgresql_dsn: str, tmp_path: Path) -> None:
    run = StandInAgent(tmp_path, postgresql_dsn).run(
        "BEGIN", "DECLARE c BINARY CURSOR FOR SELECT 1, 'x'::text, true, NULL::date", "FETCH ALL FROM c", "COMMIT"
    )
    assert run.succeeded().rows() == [("0x00000001", "0x78", "0x01", "NULL")]


@pytest.mark.parametrize(("declared", "literal", "name", "place", "value"), MYSQL)
def test_mysql_types_are_decoded(
    mysql_dsn: str, declared: str, literal: str, name: str, place: str, value: object
) -> None:
    execute(
        mysql_dsn,
        "DROP TABLE IF EXISTS types",
        f"CREATE TABLE types (v {declared})",
        f"INSERT INTO types VALUES ({literal})",
    )
    head, columns = columns_of(mysql_dsn, "SELECT v FROM types")
    assert head == [("v", name)]
    assert value_of(columns[0]) == (place, value)


def test_mysql_zero_date_is_text(mysql_dsn: str) -> None:
    execute(
        mysql_dsn,
        "DROP TABLE IF EXISTS types",
        "CREATE TABLE types (v DATE, w DATETIME)",
        "INSERT INTO types VALUES ('0000-00-00', '2024-00-00')",
        replay=("SET sql_mode=''",),
    )
    _, columns = columns_of(mysql_dsn, "SELECT * FROM types")
    assert value_of(columns[0]) == ("strings", "0000-00-00")
    assert value_of(columns[1]) == ("strings", "2024-00-00 00:00:00")


def test_mysql_aggregates_and_null_literals_are_decoded(mysql_dsn: str) -> None:
    _, columns = columns_of(mysql_dsn, "SELECT AVG(v), SUM(v), NULL FROM (SELECT 1 AS v UNION SELECT 2) AS q")
    assert value_of(columns[0]) == ("decimals", "1.5000")
    assert value_of(columns[1]) == ("decimals", "3")
    assert value_of(columns[2]) == (None, None)
    assert columns[2].nulls == b"\x01"


@pytest.mark.parametrize(("expression", "place", "value"), SQLITE)
def test_sqlite_types_are_decoded(sqlite_dsn: str, expression: str, place: str, value: object) -> None:
    head, columns = columns_of(sqlite_dsn, f"SELECT {expression} AS v")
    assert head == [("v", "")]
    assert value_of(columns[0]) == (place, value)


def test_sqlite_text_that_is_not_utf8_stays_bytes(sqlite_dsn: str) -> None:
    _, columns = columns_of(sqlite_dsn, "SELECT CAST(x'ff41' AS TEXT) AS v")
    assert columns[0].mixed.values[0].blob_value == b"\xffA"


def test_sqlite_column_can_have_mixed_types(sqlite_dsn: str) -> None:
    selects = " UNION ALL ".join(f"SELECT {literal} AS v" for literal in ("1", "'a'", "NULL", "1.5", "x'ff'"))
    _, columns = columns_of(sqlite_dsn, selects)
    values = columns[0].mixed.values
    assert [value.WhichOneof("value") for value in values] == [
        "int64_value",
        "string_value",
        None,
        "double_value",
        "blob_value",
    ]
    assert columns[0].nulls == b"\x04"


def test_nulls_are_marked(dsn: str) -> None:
    rows = " UNION ALL ".join(f"SELECT {place} AS k, {'NULL' if place % 3 == 0 else place} AS v" for place in range(20))
    _, columns = columns_of(dsn, f"SELECT k, v FROM ({rows}) AS q ORDER BY k")
    assert list(columns[1].int64s.values) == [0 if place % 3 == 0 else place for place in range(20)]
    assert [place for place in range(20) if columns[1].nulls[place // 8] >> place % 8 & 1] == list(range(0, 20, 3))
    assert columns[0].nulls == b""


def test_repeated_and_empty_names_are_kept(agent: StandInAgent) -> None:
    run = agent.run("SELECT 1 AS a, 2 AS a").succeeded()
    assert list(run.payloads("head")[0].column_names) == ["a", "a"]
    assert run.rows() == [("1", "2")]
