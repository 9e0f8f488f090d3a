"""What is special about SQLite: its library, which is built with the data process, and its files."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest
from agent import StandInAgent

NOT_NEEDED = {
    # The parser of SQLite's amalgamation has no `DELETE … LIMIT`.
    "ENABLE_UPDATE_DELETE_LIMIT",
    # ENABLE_FTS3 has it.
    "ENABLE_FTS4",
    # For programs in C only.
    *("ENABLE_FTS3_TOKENIZER", "ENABLE_PREUPDATE_HOOK", "ENABLE_SESSION", "ENABLE_UNLOCK_NOTIFY"),
}


def test_functions_of_pythons_library_exist(sqlite_agent: StandInAgent) -> None:
    names = "SELECT DISTINCT name FROM pragma_function_list"
    with sqlite3.connect(":memory:") as connection:
        expected = set(connection.execute(names))
    assert expected <= set(sqlite_agent.run(names).succeeded().rows())


def test_features_of_pythons_library_exist(sqlite_agent: StandInAgent) -> None:
    with sqlite3.connect(":memory:") as connection:
        expected = {option for (option,) in connection.execute("PRAGMA compile_options") if "ENABLE" in option}
    assert expected - NOT_NEEDED <= {option for (option,) in sqlite_agent.run("PRAGMA compile_options").rows()}


def test_functions_and_modules_work(sqlite_agent: StandInAgent) -> None:
    run = sqlite_agent.run(
        "CREATE VIRTUAL TABLE pages USING fts5(body)",
        "INSERT INTO pages VALUES ('hello world')",
        "SELECT body FROM pages WHERE pages MATCH 'hello'",
        "CREATE VIRTUAL TABLE older USING fts4(body)",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
        "SELECT round(sin(1), 4), round(ln(2), 4), pow(2, 3), ceil(1.2), mod(5, 3), sqrt(-1), x'61' LIKE 'a'",
        """SELECT json_extract('{"a": [1, 2]}', '$.a[1]'), '[5]' ->> 0, soundex('Robert')""",
        "SELECT value FROM json_each('[7]')",
        "PRAGMA foreign_keys",
    )
    assert run.succeeded().rows() == [
        ("hello world",),
        ("0.8415", "0.6931", "8.0", "2.0", "2.0", "NULL", "0"),
        ("2", "5", "R163"),
        ("7",),
        ("0",),
    ]


@pytest.mark.parametrize(
    ("sql", "name"),
    [("SELECT :a, @b", ":a"), ("INSERT INTO t VALUES (?)", "?"), ("SELECT ?2", "?"), ("SELECT $c", "$c")],
)
def test_parameter_without_a_value_is_an_error(sqlite_agent: StandInAgent, sql: str, name: str) -> None:
    sqlite_agent.run("CREATE TABLE t (a)").succeeded()
    failure = sqlite_agent.run(sql).failure()
    assert failure.user_error
    assert failure.message.startswith(f"the statement has the parameter {name}, which has no value")
    assert sqlite_agent.run("SELECT count(*) FROM t").rows() == [("0",)]


@pytest.mark.parametrize("sql", ["", ";", "-- no statement", "/* none */"])
def test_empty_statement_does_nothing(sqlite_agent: StandInAgent, sql: str) -> None:
    assert sqlite_agent.run(sql).succeeded().kinds() == ["started", "ended"]


def test_two_statements_are_an_error(sqlite_agent: StandInAgent) -> None:
    message = "You can only execute one statement at a time."
    assert sqlite_agent.run("SELECT 1; SELECT 2").failure().message == message
    assert sqlite_agent.run("SELECT 1; -- no more").succeeded().rows() == [("1",)]


def test_folder_is_no_file(sqlite_agent: StandInAgent) -> None:
    for path in (sqlite_agent.folder, f"{sqlite_agent.folder}/"):
        sqlite_agent.dsn = f"sqlite://{path}"
        assert sqlite_agent.run("SELECT 1").failure().message == (
            f"cannot open SQLite file {path}: it is a folder; name a file in it"
        )


def test_file_that_cannot_be_opened_is_named_as_the_user_wrote_it(sqlite_agent: StandInAgent) -> None:
    path = sqlite_agent.folder / "loop.db"
    path.symlink_to(path)
    sqlite_agent.dsn = f"sqlite://{path}"
    assert sqlite_agent.run("CREATE TABLE t (a)").failure().message == (
        f"cannot open SQLite file {path}: {os.strerror(errno.ELOOP)} (os error {errno.ELOOP})"
    )


def test_name_that_is_not_utf8_is_shown_with_a_replacement(sqlite_agent: StandInAgent) -> None:
    definition = b'CREATE TABLE t ("gr\xf6\xdfe" INT, other TEXT)'.hex()
    with sqlite3.connect(sqlite_agent.folder / "data.db") as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.execute("INSERT INTO t VALUES (1, 'x')")
        connection.execute("PRAGMA writable_schema = on")
        connection.execute(f"UPDATE sqlite_master SET sql = CAST(x'{definition}' AS TEXT)")
    run = sqlite_agent.run("SELECT * FROM t").succeeded()
    assert list(run.payloads("head")[0].column_names) == ["gr\ufffd\ufffde", "other"]
    assert run.rows() == [("1", "x")]
    assert sqlite_agent.run("SELECT othr FROM t").failure().message == "no such column: othr; did you mean other?"
