"""A value of each type of each database, as a notebook reads it: with NULL, and in a table without rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from real_server import RealServer

import sqlflow
from sqlflow import dbapi
from sqlflow.result import Table

EMOJI = "a\tb\\n'ä😀"


@dataclass(frozen=True)
class Expected:
    """What a notebook gets for a type: docs/python-client.md has the table."""

    pandas: str
    arrow: pa.DataType | type[pa.DataType]
    pandas_of_nulls: str = ""
    """If it differs."""

    def of_nulls(self) -> str:
        return self.pandas_of_nulls or self.pandas


BOOL = Expected("bool", pa.bool_(), "boolean")
INT = Expected("int64", pa.int64(), "Int64")
UINT = Expected("uint64", pa.uint64(), "UInt64")
DOUBLE = Expected("float64", pa.float64())
DECIMAL = Expected("object", pa.Decimal128Type)
TEXT = Expected(str(pd.Series(["a"]).dtype), pa.string())
BLOB = Expected("object", pa.binary())
DATE = Expected("datetime64[s]", pa.date32())
TIMESTAMP = Expected("datetime64[us]", pa.timestamp("us"))
INSTANT = Expected("datetime64[us, UTC]", pa.timestamp("us", "UTC"))

MICROSECOND = dt.datetime(2024, 2, 29, 1, 2, 3, 4)

SQLITE: list[tuple[str, str, Any, Expected]] = [
    ("INTEGER", "-9223372036854775808", -(2**63), INT),
    ("REAL", "0.1", 0.1, DOUBLE),
    ("DOUBLE PRECISION", "1e308", 1e308, DOUBLE),
    ("TEXT", "char(97, 9) || 'b\\n''ä😀'", EMOJI, TEXT),
    ("VARCHAR(9)", "''", "", TEXT),
    ("BLOB", "X'00ff27'", b"\x00\xff'", BLOB),
]
"""The declared types that decide the type of values. A column of another one, such as DATE, holds what was inserted."""

MYSQL: list[tuple[str, str, Any, Expected]] = [
    ("BOOLEAN", "TRUE", 1, INT),
    ("TINYINT", "-128", -128, INT),
    ("SMALLINT UNSIGNED", "65535", 65535, INT),
    ("MEDIUMINT", "-8388608", -8388608, INT),
    ("INT UNSIGNED", "4294967295", 4294967295, INT),
    ("BIGINT", "-9223372036854775808", -(2**63), INT),
    ("YEAR", "2024", 2024, INT),
    ("BIT(10)", "b'1000000001'", 513, INT),
    ("DECIMAL(30,4)", "-12345678901234567890.1250", Decimal("-12345678901234567890.1250"), DECIMAL),
    ("DECIMAL(5,0)", "7", Decimal(7), DECIMAL),
    ("FLOAT", "1.5", 1.5, DOUBLE),
    ("DOUBLE", "0.1", 0.1, DOUBLE),
    ("CHAR(9)", "'x'", "x", TEXT),
    ("VARCHAR(9)", "'a\tb\\\\n''ä😀'", EMOJI, TEXT),
    ("VARCHAR(9) CHARACTER SET latin1", "'ä'", "ä", TEXT),
    ("LONGTEXT", "'a\tb\\\\n''ä😀'", EMOJI, TEXT),
    ("ENUM('b','ä')", "'ä'", "ä", TEXT),
    ("SET('a','b')", "'a,b'", "a,b", TEXT),
    ("JSON", """'{"a": [1]}'""", '{"a": [1]}', TEXT),
    ("TIME(1)", "'-838:59:58.5'", "-838:59:58.5", TEXT),
    ("BINARY(3)", "X'00FF27'", b"\x00\xff'", BLOB),
    ("VARBINARY(3)", "X'00FF27'", b"\x00\xff'", BLOB),
    ("LONGBLOB", "X'00FF27'", b"\x00\xff'", BLOB),
    ("DATE", "'1000-01-01'", dt.date(1000, 1, 1), DATE),
    ("DATETIME(6)", "'2024-02-29 01:02:03.000004'", MICROSECOND, TIMESTAMP),
    ("TIMESTAMP(6) NULL", "'2024-02-29 01:02:03.000004'", MICROSECOND, TIMESTAMP),
]

POSTGRESQL: list[tuple[str, str, Any, Expected]] = [
    ("boolean", "true", True, BOOL),
    ("smallint", "-32768", -32768, INT),
    ("integer", "2147483647", 2147483647, INT),
    ("bigint", "-9223372036854775808", -(2**63), INT),
    ("oid", "4294967295", 4294967295, INT),
    ("numeric(30,4)", "-12345678901234567890.1250", Decimal("-12345678901234567890.1250"), DECIMAL),
    ("numeric", "1e-20", Decimal("0.00000000000000000001"), DECIMAL),
    ("real", "1.5", 1.5, DOUBLE),
    ("double precision", "0.1", 0.1, DOUBLE),
    ("text", "E'a\\tb\\\\n''ä😀'", EMOJI, TEXT),
    ("varchar(9)", "'ab'", "ab", TEXT),
    ("char(3)", "'ab'", "ab ", TEXT),
    ("uuid", "'00000000-0000-0000-0000-00000000000a'", "00000000-0000-0000-0000-00000000000a", TEXT),
    ("json", """'{"a": [1]}'""", '{"a": [1]}', TEXT),
    ("jsonb", """'{"a":[1]}'""", '{"a": [1]}', TEXT),
    ("xml", "'<a/>'", "<a/>", TEXT),
    ("time", "'24:00'", "24:00:00", TEXT),
    ("timetz", "'01:02+03'", "01:02:00+03", TEXT),
    ("interval", "'1 mon 2 days'", "1 mon 2 days", TEXT),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8", TEXT),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03", TEXT),
    ("money", "'1.50'", "$1.50", TEXT),
    ("bit(3)", "B'101'", "101", TEXT),
    ("bit varying(5)", "B'101'", "101", TEXT),
    ("integer[]", "ARRAY[1, NULL]", "{1,NULL}", TEXT),
    ("bytea", r"'\x00ff27'", b"\x00\xff'", BLOB),
    ("date", "'1000-01-01'", dt.date(1000, 1, 1), DATE),
    ("timestamp", "'2024-02-29 01:02:03.000004'", MICROSECOND, TIMESTAMP),
    ("timestamptz", "'2024-02-29 03:02:03.000004+02'", MICROSECOND.replace(tzinfo=dt.UTC), INSTANT),
]

DUCKDB: list[tuple[str, str, Any, Expected]] = [
    ("BOOLEAN", "true", True, BOOL),
    ("TINYINT", "-128", -128, INT),
    ("SMALLINT", "-32768", -32768, INT),
    ("INTEGER", "2147483647", 2147483647, INT),
    ("BIGINT", "-9223372036854775808", -(2**63), INT),
    ("UTINYINT", "255", 255, INT),
    ("USMALLINT", "65535", 65535, INT),
    ("UINTEGER", "4294967295", 4294967295, INT),
    # Its type decides, and not whether a value is large, as in MySQL.
    ("UBIGINT", "7", 7, UINT),
    # Beyond 64 bits, integers are exact decimals.
    ("HUGEINT", "-9223372036854775809", Decimal(-(2**63) - 1), DECIMAL),
    ("UHUGEINT", "7", Decimal(7), DECIMAL),
    ("BIGNUM", "18446744073709551616", Decimal(2**64), DECIMAL),
    ("DECIMAL(30,4)", "-12345678901234567890.1250", Decimal("-12345678901234567890.1250"), DECIMAL),
    ("DECIMAL(38,37)", "1e-37", Decimal("1e-37"), DECIMAL),
    ("DECIMAL(5,0)", "7", Decimal(7), DECIMAL),
    ("FLOAT", "0.1", 0.1, DOUBLE),
    ("DOUBLE", "0.1", 0.1, DOUBLE),
    # The length has no effect.
    ("VARCHAR(1)", "E'a\\tb\\\\n''ä😀'", EMOJI, TEXT),
    ("ENUM('b', 'ä')", "'ä'", "ä", TEXT),
    ("JSON", """'{"a": [1]}'""", '{"a": [1]}', TEXT),
    ("UUID", "'00000000-0000-0000-0000-00000000000a'", "00000000-0000-0000-0000-00000000000a", TEXT),
    ("BIT", "'101'", "101", TEXT),
    ("TIME", "'24:00'", "24:00:00", TEXT),
    ("TIME_NS", "'01:02:03.000000004'", "01:02:03.000000004", TEXT),
    ("TIMETZ", "'01:02:03+03'", "01:02:03+03", TEXT),
    ("INTERVAL", "'1 month 2 days'", "1 month 2 days", TEXT),
    ("INTEGER[]", "[1, NULL]", "[1, NULL]", TEXT),
    ("INTEGER[3]", "[1, 2, NULL]", "[1, 2, NULL]", TEXT),
    ("STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': 'x'}", "{'a': 1, 'b': x}", TEXT),
    ("MAP(VARCHAR, INTEGER)", "MAP {'k': 1}", "{k=1}", TEXT),
    ("UNION(n INTEGER, t VARCHAR)", "'x'", "x", TEXT),
    ("VARIANT", "{'a': 1}", "{'a': 1}", TEXT),
    ("BLOB", "X'00FF27'", b"\x00\xff'", BLOB),
    ("DATE", "'1000-01-01'", dt.date(1000, 1, 1), DATE),
    ("TIMESTAMP", "'2024-02-29 01:02:03.000004'", MICROSECOND, TIMESTAMP),
    ("TIMESTAMP_S", "'2024-02-29 01:02:03'", MICROSECOND.replace(microsecond=0), TIMESTAMP),
    ("TIMESTAMP_MS", "'2024-02-29 01:02:03.004'", MICROSECOND.replace(microsecond=4000), TIMESTAMP),
    # A text, because Python's times have no nanoseconds.
    ("TIMESTAMP_NS", "'2024-02-29 01:02:03.000000004'", "2024-02-29 01:02:03.000000004", TEXT),
    ("TIMESTAMPTZ", "'2024-02-29 03:02:03.000004+02'", MICROSECOND.replace(tzinfo=dt.UTC), INSTANT),
]

TYPES = {"sqlite": SQLITE, "duckdb": DUCKDB, "mysql": MYSQL, "postgresql": POSTGRESQL}


def same_type(found: pa.DataType, expected: pa.DataType | type[pa.DataType]) -> bool:
    return isinstance(found, expected) if isinstance(expected, type) else found == expected


@pytest.mark.parametrize("database", TYPES)
def test_values_and_nulls_of_each_type(database: str, client: sqlflow.Client, request: pytest.FixtureRequest) -> None:
    types = TYPES[database]
    names = [f"c{place}" for place in range(len(types))]
    columns = ", ".join(f"{name} {kind}" for name, (kind, *_) in zip(names, types, strict=True))
    program = f"""
        DROP TABLE IF EXISTS every_type;
        CREATE TABLE every_type ({columns}, k INTEGER);
        INSERT INTO every_type VALUES ({", ".join(literal for _, literal, *_ in types)}, 1);
        INSERT INTO every_type (k) VALUES (2);
        SELECT {", ".join(names)} FROM every_type WHERE k = 1;
        SELECT {", ".join(names)} FROM every_type ORDER BY k;
        SELECT {", ".join(names)} FROM every_type WHERE k = 2;
        SELECT {", ".join(names)} FROM every_type WHERE k = 3;
        DROP TABLE every_type"""
    result = client.run(program, datasource=request.getfixturevalue(f"{database}_dsn")).result()
    value, both, null, empty = result.tables
    cells = [cell for _, _, cell, _ in types]
    for found, expected, (kind, *_) in zip(next(iter(value)), cells, types, strict=True):
        assert (type(found), found) == (type(expected), expected), kind
    assert list(both) == [tuple(cells), (None,) * len(types)]
    wanted = [expected for *_, expected in types]
    kinds = [kind for kind, *_ in types]
    assert dtypes(value, kinds) == dict(zip(kinds, [it.pandas for it in wanted], strict=True))
    of_nulls = dict(zip(kinds, [it.of_nulls() for it in wanted], strict=True))
    assert dtypes(both, kinds) == of_nulls
    assert both.to_pandas().isna().iloc[1].all() and not both.to_pandas().isna().iloc[0].any()
    # SQLite reports no type of a column without a value.
    untyped = dict.fromkeys(kinds, "object") if database == "sqlite" else None
    assert dtypes(null, kinds) == (untyped or of_nulls) and null.to_pandas().isna().all(axis=None)
    assert dtypes(empty, kinds) == (untyped or dtypes(value, kinds))
    for table in (value, both) if untyped else result.tables:
        arrow = table.to_arrow()
        for field, expected, kind in zip(arrow.schema, wanted, kinds, strict=True):
            assert same_type(field.type, expected.arrow), (kind, field.type)
    assert list(both.to_arrow().to_pylist()[0].values()) == cells
    assert set(both.to_arrow().to_pylist()[1].values()) == {None}


def dtypes(table: Table, kinds: list[str]) -> dict[str, str]:
    return dict(zip(kinds, [str(kind) for kind in table.to_pandas().dtypes], strict=True))


@pytest.mark.parametrize(("database", "kind"), [("duckdb", "UBIGINT"), ("mysql", "BIGINT UNSIGNED")])
def test_large_unsigned_integers_are_exact(
    database: str, kind: str, client: sqlflow.Client, request: pytest.FixtureRequest
) -> None:
    program = f"""DROP TABLE IF EXISTS large; CREATE TABLE large (n {kind}, k INT);
        INSERT INTO large VALUES (18446744073709551615, 1), (7, 2), (NULL, 3);
        SELECT n FROM large WHERE k < 3 ORDER BY k; SELECT n FROM large ORDER BY k; DROP TABLE large"""
    whole, nulls = client.run(program, datasource=request.getfixturevalue(f"{database}_dsn")).result().tables
    assert whole.to_pandas()["n"].tolist() == [2**64 - 1, 7] and str(whole.to_pandas()["n"].dtype) == "uint64"
    assert whole.to_arrow().column("n").to_pylist() == [2**64 - 1, 7]
    assert str(nulls.to_pandas()["n"].dtype) == "UInt64" and nulls.to_pandas()["n"][0] == 2**64 - 1
    assert nulls.to_arrow().column("n").to_pylist() == [2**64 - 1, 7, None]


def test_integers_of_duckdb_beyond_64_bits_are_exact(client: sqlflow.Client, duckdb_dsn: str) -> None:
    program = f"""SELECT '{-(2**127)}'::HUGEINT AS a, '{2**128 - 1}'::UHUGEINT AS b, '{10**80}'::BIGNUM AS c,
        sum(9000000000000000000 + i) AS d FROM range(10) AS t(i)"""
    table = client.run(program, datasource=duckdb_dsn).result().table
    numbers = [Decimal(-(2**127)), Decimal(2**128 - 1), Decimal(10**80), Decimal(90000000000000000045)]
    assert list(table) == [tuple(numbers)]
    assert table.to_pandas().iloc[0].tolist() == numbers
    # Arrow's decimals have 76 digits.
    assert table.to_arrow().to_pylist() == [{"a": numbers[0], "b": numbers[1], "c": f"{10**80}", "d": numbers[3]}]


def test_values_of_duckdb_beyond_numbers_and_the_calendar_are_kept(client: sqlflow.Client, duckdb_dsn: str) -> None:
    program = """SELECT '-Infinity'::DOUBLE AS b, 'NaN'::DOUBLE AS c, 'infinity'::DATE AS d,
        '4713-01-01 (BC)'::DATE AS e, '5874897-12-31'::DATE AS f, '294246-12-31 23:59:59.999999'::TIMESTAMP AS g,
        '10000-01-01 00:00+00'::TIMESTAMPTZ AS h"""
    (row,) = client.run(program, datasource=duckdb_dsn).result()
    assert row[0] == float("-inf") and row[1] != row[1]
    assert row[2:] == (
        "infinity",
        "4713-01-01 (BC)",
        "5874897-12-31",
        "294246-12-31 23:59:59.999999",
        "10000-01-01 00:00:00+00",
    )


def test_values_beyond_numbers_and_the_calendar_are_kept(client: sqlflow.Client, postgresql_dsn: str) -> None:
    program = """SELECT 'NaN'::numeric AS a, '-Infinity'::float8 AS b, 'NaN'::float8 AS c, 'infinity'::date AS d,
        '4713-01-01 BC'::date AS e, '5874897-12-31'::date AS f, '294276-12-31 23:59:59.999999'::timestamp AS g,
        '10000-01-01 00:00+00'::timestamptz AS h"""
    table = client.run(program, datasource=postgresql_dsn).result().table
    (row,) = table
    assert row[0].is_nan() and row[1] == float("-inf") and row[2] != row[2]  # type: ignore[union-attr]
    assert row[3:] == (
        "infinity",
        "4713-01-01 BC",
        "5874897-12-31",
        "294276-12-31 23:59:59.999999",
        "10000-01-01 00:00:00+00",
    )


def test_parameters_come_back_as_they_were_sent(server: RealServer, dsn: str) -> None:
    """By DB-API: what Python writes it reads again, in columns that have a type for it."""
    types = {
        "sqlite": ("INTEGER", "REAL", "TEXT", "BLOB"),
        "duckdb": ("BIGINT", "DOUBLE", "TEXT", "BLOB", "DECIMAL(20,5)", "DATE", "TIMESTAMP", "TIMESTAMPTZ"),
        "mysql": ("BIGINT", "DOUBLE", "TEXT", "BLOB", "DECIMAL(20,5)", "DATE", "DATETIME(6)"),
        "postgresql": ("bigint", "float8", "text", "bytea", "numeric(20,5)", "date", "timestamp", "timestamptz"),
    }[dsn.partition(":")[0]]
    instant = MICROSECOND.replace(tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
    values = (-(2**63), 5e-324, EMOJI + '%s"`$1?:a --', bytes(range(256)), Decimal("-123456789012345.67890"))
    values += (dt.date(2024, 2, 29), MICROSECOND, instant)
    first = values[: len(types)]
    with dbapi.connect(server.address, datasource=dsn) as connection:
        cursor = connection.cursor()
        cursor.execute("DROP TABLE IF EXISTS parameters")
        columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(types))
        cursor.execute(f"CREATE TABLE parameters ({columns})")
        marks = ", ".join(["%s"] * len(types))
        cursor.executemany(f"INSERT INTO parameters VALUES ({marks})", [first, [None] * len(types)])
        assert cursor.rowcount == 2
        rows = cursor.execute("SELECT * FROM parameters ORDER BY c0 IS NULL").fetchall()
        assert rows == [first, (None,) * len(types)]
        found = cursor.execute("SELECT count(*) FROM parameters WHERE c2 = %s", [first[2]]).fetchall()
        assert found == [(1,)]
        cursor.execute("DROP TABLE parameters")


NOON = dt.datetime(2024, 7, 1, 12)


def test_timestamp_of_mysql_is_in_the_zone_of_the_session(client: sqlflow.Client, mysql_dsn: str) -> None:
    program = """
        SET time_zone = '+00:00'; DROP TABLE IF EXISTS zoned; CREATE TABLE zoned (t TIMESTAMP NULL, d DATETIME);
        INSERT INTO zoned VALUES ('2024-07-01 12:00:00', '2024-07-01 12:00:00');
        SET time_zone = '+05:30'; SELECT * FROM zoned; DROP TABLE zoned"""
    result = client.run(program, datasource=mysql_dsn).result()
    # What the database shows.
    assert list(result) == [(NOON + dt.timedelta(hours=5, minutes=30), NOON)]


ZONED = ["duckdb", "postgresql"]
"""Databases with a type for instants."""


@pytest.mark.parametrize("database", ZONED)
def test_instants_are_in_utc_whatever_the_zone_of_the_session(
    database: str, client: sqlflow.Client, request: pytest.FixtureRequest
) -> None:
    program = """
        SET timezone = 'Asia/Kolkata'; DROP TABLE IF EXISTS zoned; CREATE TABLE zoned (t timestamptz, d timestamp);
        INSERT INTO zoned VALUES ('2024-07-01 12:00', '2024-07-01 12:00'), ('2024-07-01 12:00Z', '2024-07-01 12:00Z');
        SELECT * FROM zoned; DROP TABLE zoned"""
    result = client.run(program, datasource=request.getfixturevalue(f"{database}_dsn")).result()
    instants = [dt.datetime(2024, 7, 1, 6, 30, tzinfo=dt.UTC), dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)]
    assert list(result) == [(instants[0], NOON), (instants[1], NOON)]
    assert result.to_pandas()["t"].tolist() == [pd.Timestamp(instant) for instant in instants]


@pytest.mark.parametrize("database", ZONED)
def test_zone_of_a_parameter_is_kept_by_types_with_a_zone(
    database: str, server: RealServer, request: pytest.FixtureRequest
) -> None:
    instant = dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=-4)))
    with dbapi.connect(server.address, datasource=request.getfixturevalue(f"{database}_dsn")) as connection:
        cursor = connection.cursor().execute("SELECT %s::timestamptz", [instant])
        assert cursor.fetchone() == (instant,)


@pytest.mark.parametrize("database", ZONED)
def test_parameter_that_is_no_number_is_kept(database: str, server: RealServer, request: pytest.FixtureRequest) -> None:
    values = (float("inf"), float("-inf"), float("nan"))
    with dbapi.connect(server.address, datasource=request.getfixturevalue(f"{database}_dsn")) as connection:
        assert str(connection.cursor().execute("SELECT %s, %s, %s", values).fetchone()) == str(values)


QUOTED = {"mysql": "`{}`"}


def test_quoted_names_are_kept_everywhere(client: sqlflow.Client, dsn: str) -> None:
    database = dsn.partition(":")[0]

    def quoted(name: str) -> str:
        return QUOTED.get(database, '"{}"').format(name)

    table, length, kind, label = (quoted(it) for it in ("My Table", "größe (cm)", "select", "Art"))
    rows = ", ".join(f"({place % 10}, '{'ab'[place % 2]}', {place % 10 // 5})" for place in range(40))
    model = f"quoted_{database}"
    program = f"""
        DROP TABLE IF EXISTS {table};
        CREATE TABLE {table} ({length} DOUBLE PRECISION, {kind} VARCHAR(9), {label} INTEGER);
        INSERT INTO {table} VALUES {rows};
        SELECT * FROM {table} TO TRAIN xgboost.gbtree
        WITH objective = 'binary:logistic', train.num_boost_round = 3
        COLUMN {length}, CATEGORY_HASH({kind}, 10) LABEL {label} INTO {model};
        SELECT * FROM {table} TO EVALUATE {model} WITH validation.metrics = 'accuracy_score' LABEL {label};
        SELECT {length}, {kind} FROM {table} TO PREDICT of_quoted.predicted USING {model};
        SELECT {length}, {kind}, predicted FROM of_quoted ORDER BY 1;
        DROP TABLE {table}; DROP TABLE of_quoted; DROP MODEL {model}"""
    found = client.run(program, datasource=dsn).result().tables
    assert found[-1].column_names == ["größe (cm)", "select", "predicted"] and len(found[-1]) == 40
    assert {row[2] for row in found[-1]} == {0, 1}
