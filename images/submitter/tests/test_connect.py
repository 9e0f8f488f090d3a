"""Errors of data sources. Their messages never contain a password."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from agent import Run, StandInAgent
from servers import PASSWORD, free_port

from sqlflow_submitter.connect import connect
from sqlflow_submitter.connect.go_dsn import parse_go_dsn
from sqlflow_submitter.connect.open_writer import open_writer
from sqlflow_submitter.connect.sqlite import database_path
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.redact import Redactor

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
    path = Path(sqlite_agent.dsn.removeprefix("sqlite://"))
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
    for mode in ("ro", "rw"):
        StandInAgent(tmp_path, f"{dsn}?mode={mode}").run("CREATE TABLE t (a)").succeeded()
        assert not Path(path).exists()
    StandInAgent(tmp_path, f"{dsn}?mode=rwc").run("CREATE TABLE t (a)").succeeded()
    assert Path(path).exists()
    StandInAgent(tmp_path, f"{dsn}?mode=rw").run("INSERT INTO t VALUES (7)").succeeded()
    reader = StandInAgent(tmp_path, f"{dsn}?mode=ro")
    assert "readonly database" in reader.run("INSERT INTO t VALUES (8)").failure().message
    assert reader.run("SELECT * FROM t").succeeded().rows() == [("7",)]
    with connect(f"{dsn}?mode=ro") as database, open_writer(database) as writer:
        assert database.describe("SELECT * FROM t")[0].name == "a"
        assert writer.creation_obstacle(writer.table_name("o")) == "the data source is opened with mode=ro"
    for option, message in (
        ("mode=r", "data source sqlite: mode r does not exist; did you mean rw or ro? (known: ro, rw, rwc)"),
        ("moed=ro", "data source sqlite: option moed does not exist; did you mean mode?"),
        ("mode=ro&cache=shared", "data source sqlite: option cache does not exist (known: mode)"),
    ):
        with pytest.raises(UserError, match=r"^data source sqlite") as rejects:
            connect(f"{dsn}?{option}")
        assert message in str(rejects.value)


def test_result_table_in_missing_sqlite_file_is_rejected(sqlite_dsn: str) -> None:
    with connect(sqlite_dsn, may_create=False) as database, pytest.raises(UserError) as rejects:
        open_writer(database)
    path = sqlite_dsn.removeprefix("sqlite://")
    assert str(rejects.value).startswith(f"cannot write into SQLite file {path}: it does not exist; correct the path")


@pytest.mark.parametrize(
    ("text", "path"),
    [("/data/a.db", "/data/a.db"), ("//data/a.db", "/data/a.db"), ("/:memory:", ":memory:"), ("/a.db?x=1", "/a.db")],
)
def test_sqlite_paths_are_absolute(text: str, path: str) -> None:
    assert database_path(text) == path


def test_go_dsn_is_parsed() -> None:
    dsn = parse_go_dsn("u:p/w@rd:x?y@tcp(db.example:3307)/d?maxAllowedPacket=0&sql_mode=%27ANSI%27")
    assert (dsn.user, dsn.password, dsn.host, dsn.port) == ("u", "p/w@rd:x?y", "db.example", 3307)
    assert (dsn.database, dsn.options) == ("d", {"maxAllowedPacket": "0", "sql_mode": "'ANSI'"})
    assert parse_go_dsn("u@unix(/run/my.sock)/d").address() == "/run/my.sock"
    assert parse_go_dsn("/d")[2:4] == ("127.0.0.1", 3306)
    assert parse_go_dsn("u:p@[::1]:3308/")[2:6] == ("::1", 3308, None, "")
    with pytest.raises(UserError, match="database"):
        parse_go_dsn("u:p@tcp(h:1)")


def test_go_dsn_options_are_session_variables(tmp_path: Path, mysql_dsn: str) -> None:
    run = StandInAgent(tmp_path, mysql_dsn + "&sql_mode=%27ANSI_QUOTES%27").run("SELECT @@sql_mode")
    assert run.succeeded().rows() == [("ANSI_QUOTES",)]


@pytest.mark.parametrize(
    "dsn",
    [f"mysql://u:{SECRET}@tcp(h:1)/d", f"postgresql://u:{ESCAPED}@h/d", f"postgresql://h/d?user=u&password={ESCAPED}"],
)
def test_driver_messages_are_redacted(dsn: str) -> None:
    redactor = Redactor()
    redactor.add_dsn(dsn)
    assert redactor.redact(f"a {dsn} b {ESCAPED} c") == f"a *** b {'***' if ESCAPED in dsn else ESCAPED} c"
    assert redactor.redact(f"x{SECRET}x") == "x***x"


def test_sqlite_file_is_not_created_in_root_or_missing_folder(tmp_path: Path) -> None:
    said = StandInAgent(tmp_path, "sqlite:///no-such-iris.db").run("SELECT 1").failure().message
    assert said.startswith("cannot open SQLite file /no-such-iris.db: it does not exist, and the path"), said
    assert not Path("/no-such-iris.db").exists()
    said = StandInAgent(tmp_path, f"sqlite://{tmp_path}/typo/iris.db").run("SELECT 1").failure().message
    assert f"the folder {tmp_path}/typo does not exist" in said
    StandInAgent(tmp_path, f"sqlite://{tmp_path}/new.db").run("CREATE TABLE t (n INTEGER)")
    assert (tmp_path / "new.db").exists()


def test_schemes_of_the_server_are_accepted(tmp_path: Path) -> None:
    StandInAgent(tmp_path, f"sqlite3://{tmp_path}/new.db").run("CREATE TABLE t (n INTEGER)").succeeded()
