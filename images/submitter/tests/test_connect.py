"""Errors of data sources. Their messages never contain a password."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from agent import Run, StandInAgent
from in_process import check_result, described
from servers import PASSWORD, free_port

from sqlflow_submitter.errors import UserError

SECRET = "hunter2/pa@ss"
ESCAPED = "hunter2%2Fpa%40ss"


def assert_hidden(run: Run) -> None:
    said = run.stdout + run.stderr + "".join(str(frame) for frame in run.frames)
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        SECRET,
        f"mysq://u:{SECRET}@tcp(h:1)/d",
        f"hive://u:{SECRET}@h:10000/db",
        f"mysql://u:{SECRET}@tcp(h:x1)/d",
        f"mysql://u:{SECRET}@tcp(h:1/d",
        "mysql://u:hunter2@h:3306",
        f"postgresql://u:{ESCAPED}@h:notaport/d",
        f"postgresql://u:{SECRET}@h:1/d",
        "postgresql://u:1234/hunter2@h:1/d",
        "postgresql://u:x@hunter2@h:1/d",
        f"postgresql://u:{ESCAPED}@h:1/d?no_such_option=1",
        f"sqlite://u:{SECRET}@h/d",
        "sqlite:///no/such/folder/data.db",
        "sqlite:///tmp/",
    ],
)
def test_malformed_data_source_is_reported_in_one_line(tmp_path: Path, dsn: str) -> None:
    run = StandInAgent(tmp_path, dsn).run("SELECT 1")
    failure = run.failure()
    assert failure.user_error
    assert not failure.transient
    assert_hidden(run)


@pytest.mark.parametrize(
    "form", ["mysql://u:{}@tcp(127.0.0.1:{})/d", "mysql://u:{}@127.0.0.1:{}/d", "postgresql://u:{}@127.0.0.1:{}/d"]
)
def test_unavailable_database_is_retryable(tmp_path: Path, form: str) -> None:
    port = free_port()
    run = StandInAgent(tmp_path, form.format(ESCAPED, port)).run("SELECT 1")
    failure = run.failure()
    assert failure.transient
    assert not failure.user_error
    assert f"127.0.0.1:{port}" in failure.message
    assert "refused" in failure.message
    assert_hidden(run)


def test_wrong_password_is_a_user_error(tmp_path: Path, mysql_dsn: str, postgresql_dsn: str) -> None:
    for dsn in (mysql_dsn.replace(PASSWORD, "hunter2"), postgresql_dsn.replace("secret", "hunter2")):
        run = StandInAgent(tmp_path, dsn).run("SELECT 1")
        failure = run.failure()
        assert failure.user_error
        assert not failure.transient
        assert "hunter2" not in run.stderr + str(run.frames)


def test_unknown_database_is_named(tmp_path: Path, mysql_dsn: str, postgresql_dsn: str) -> None:
    for dsn in (mysql_dsn.replace("/test?", "/nowhere?"), postgresql_dsn.replace("/postgres", "/nowhere")):
        failure = StandInAgent(tmp_path, dsn).run("SELECT 1").failure()
        assert failure.user_error
        assert "nowhere" in failure.message


def test_lost_connection_is_retryable(tmp_path: Path, mysql_dsn: str, postgresql_dsn: str) -> None:
    for dsn, kill in (
        (mysql_dsn, "KILL CONNECTION_ID()"),
        (postgresql_dsn, "SELECT pg_terminate_backend(pg_backend_pid())"),
    ):
        failure = StandInAgent(tmp_path, dsn).run(kill, "SELECT 1").failure()
        assert failure.transient


def failing_function(code: str) -> str:
    return (
        "CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'for now' USING ERRCODE = '{code}'; END $$"
    )


def test_statement_counts_as_not_executed_only_if_that_is_certain(
    tmp_path: Path, mysql_dsn: str, postgresql_dsn: str
) -> None:
    sqlite = f"{tmp_path}/locked.db"
    with closing(sqlite3.connect(sqlite, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for is_certain, dsn, *statements in (
            (True, f"sqlite://{sqlite}", "PRAGMA busy_timeout = 0", "CREATE TABLE t (x)"),
            (True, postgresql_dsn, "BEGIN", failing_function("40P01"), "SELECT refuse()"),
            # It leaves an invalid index.
            (
                False,
                postgresql_dsn,
                "CREATE TABLE indexed (x int)",
                "INSERT INTO indexed VALUES (1)",
                failing_function("40P01").replace("refuse()", "refuse_at(x int)") + " IMMUTABLE",
                "CREATE INDEX CONCURRENTLY i ON indexed (refuse_at(x))",
            ),
            # It may have committed before the error.
            (False, postgresql_dsn, "DO $$ BEGIN RAISE EXCEPTION 'for now' USING ERRCODE = '40P01'; END $$"),
            (False, mysql_dsn, "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'deadlock'"),
            # The connection is lost, so the server cannot confirm it.
            (False, postgresql_dsn, "SELECT pg_terminate_backend(pg_backend_pid())"),
        ):
            failure = StandInAgent(tmp_path, dsn).run(*statements).failure()
            assert failure.transient
            assert failure.not_executed == is_certain, statements


def test_misspelt_sqlite_file_is_reported_and_not_created(sqlite_agent: StandInAgent) -> None:
    path = Path(sqlite_agent.dsn.removeprefix("sqlite://").removesuffix("?mode=rwc"))
    for sql in ("SELECT * FROM iris", "-- all\n/* of it */ DELETE FROM iris", "DROP TABLE iris"):
        message = sqlite_agent.run(sql).failure().message
        assert message == f"no such table: iris; SQLite file {path} did not exist, check its path"
    assert sqlite_agent.run("SELECT 1 AS a").succeeded().rows() == [("1",)]
    select = {"select": "SELECT 1 AS a", "model": "m", "model_dir": "m"}
    train = {"kind": "train", "label": "a", "estimator": "xgboost.gbtree", "output": "m", **select}
    assert "did not exist" in sqlite_agent.run({**train, "select": "SELECT * FROM iris"}).failure().message
    assert not path.exists()
    # Nothing that these change or make is kept.
    for sql in ("CREATE TEMP TABLE t (a)", "VACUUM", "PRAGMA journal_mode = wal", "PRAGMA user_version = 3", "REINDEX"):
        said = sqlite_agent.run(sql).succeeded().stdout
        assert f"SQLite file {path} does not exist: its database is empty, and no change is kept" in said
    assert "no such table: main.t" in sqlite_agent.run("CREATE INDEX i ON t (a)").failure().message
    assert not path.exists()
    made = sqlite_agent.run("SELECT 1 AS a", "/* x */ CREATE -- y\nTABLE t (a)").succeeded()
    assert made.stdout == f"SQLite file {path} did not exist and is created\n"
    assert sqlite_agent.run("SELECT * FROM iris").failure().message == "no such table: iris"


def test_sqlite_mode_is_obeyed(tmp_path: Path) -> None:
    path = f"{tmp_path}/a?b#c%41.db".replace("?", "")
    dsn = f"sqlite://{path}"
    for mode in ("", "?mode=ro", "?mode=rw"):
        message = StandInAgent(tmp_path, f"{dsn}{mode}").run("CREATE TABLE t (a)").failure().message
        assert message.startswith(f"cannot open SQLite file {path}: no such file; "), message
        assert not Path(path).exists()
    StandInAgent(tmp_path, f"{dsn}?mode=rwc").run("CREATE TABLE t (a)").succeeded()
    assert Path(path).exists()
    StandInAgent(tmp_path, f"{dsn}?mode=rw").run("INSERT INTO t VALUES (7)").succeeded()
    reader = StandInAgent(tmp_path, f"{dsn}?mode=ro")
    assert "readonly database" in reader.run("INSERT INTO t VALUES (8)").failure().message
    assert reader.run("SELECT * FROM t").succeeded().rows() == [("7",)]
    assert described("SELECT * FROM t", reader.dsn, tmp_path)[0].name == "a"
    with pytest.raises(UserError, match="cannot write table o: the data source is opened with mode=ro; "):
        check_result("o", reader.dsn, tmp_path)
    for option in ("mode=r", "moed=ro", "mode=ro&cache=shared"):
        message = StandInAgent(tmp_path, f"{dsn}?{option}").run("SELECT 1").failure().message
        assert message == (
            "the SQLite data source has an option that is not supported; supported: ?mode=ro, ?mode=rw and ?mode=rwc"
        )


def test_result_table_in_missing_sqlite_file_is_rejected(sqlite_dsn: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as rejects:
        check_result("o", sqlite_dsn, tmp_path)
    path = sqlite_dsn.removeprefix("sqlite://").removesuffix("?mode=rwc")
    assert str(rejects.value).startswith(f"cannot write into SQLite file {path}: it does not exist; correct the path")


def test_go_dsn_options_are_session_variables(tmp_path: Path, mysql_dsn: str) -> None:
    run = StandInAgent(tmp_path, mysql_dsn + "&sql_mode=%27ANSI_QUOTES%27").run("SELECT @@sql_mode")
    assert run.succeeded().rows() == [("ANSI_QUOTES",)]


def test_sqlite_file_is_not_created_in_root_or_missing_folder(tmp_path: Path) -> None:
    said = StandInAgent(tmp_path, "sqlite:///no-such-iris.db").run("SELECT 1").failure().message
    assert said.startswith("cannot open SQLite file /no-such-iris.db: it does not exist, and the path"), said
    assert not Path("/no-such-iris.db").exists()
    said = StandInAgent(tmp_path, f"sqlite://{tmp_path}/typo/iris.db").run("SELECT 1").failure().message
    assert f"the folder {tmp_path}/typo does not exist" in said
    StandInAgent(tmp_path, f"sqlite://{tmp_path}/new.db?mode=rwc").run("CREATE TABLE t (n INTEGER)")
    assert (tmp_path / "new.db").exists()


def test_schemes_of_the_server_are_accepted(tmp_path: Path) -> None:
    StandInAgent(tmp_path, f"sqlite3://{tmp_path}/new.db?mode=rwc").run("CREATE TABLE t (n INTEGER)").succeeded()
