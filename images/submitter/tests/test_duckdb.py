"""The data process of DuckDB, by its channel: statements, types, files and the end by signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from agent import Run, StandInAgent
from data_process import granted
from in_process import refused

from sqlflow_submitter.duckdb_data import opened
from sqlflow_submitter.duckdb_data.failure import DatabaseBusy
from sqlflow_submitter.duckdb_data.files import Reach
from sqlflow_submitter.duckdb_data.source import parse
from sqlflow_submitter.errors import SubmitterError, UserError

ROWS_1000 = "SELECT i AS a, i % 3 AS y FROM range(1000) AS t(i)"


@pytest.fixture
def agent(tmp_path: Path) -> StandInAgent:
    return StandInAgent(tmp_path, f"duckdb://{tmp_path}/data.duckdb?mode=rwc")


def of_memory(tmp_path: Path) -> StandInAgent:
    return StandInAgent(tmp_path, "duckdb://")


def limited(agent: StandInAgent, **reach: object) -> StandInAgent:
    """With the limits of a server."""
    agent.secrets["data_source_reach"] = json.dumps({"is_clients": True, **reach})
    return agent


def message(run: Run) -> str:
    failure = run.failure()
    assert failure.user_error, failure
    return str(failure.message)


def test_statements_report_rows_and_changes(agent: StandInAgent) -> None:
    run = agent.run(
        "CREATE TABLE t (a INT, b VARCHAR)",
        "INSERT INTO t VALUES (1, 'x'), (2, NULL)",
        "UPDATE t SET a = a + 1 WHERE b IS NULL",
        "SELECT * FROM t ORDER BY a -- the rows",
        "DELETE FROM t WHERE a = 1 RETURNING a, [a, NULL] AS list",
        "SELECT * FROM t WHERE false",
    ).succeeded()
    assert [it.rows_affected if it.HasField("rows_affected") else None for it in run.payloads("ended")] == [
        *(None, 2, 1),
        *(None, None, None),
    ]
    assert run.rows(3) == [("1", "x"), ("3", "NULL")]
    assert run.rows(4) == [("1", "[1, NULL]")]
    heads = run.payloads("head")
    assert list(heads[0].column_names) == ["a", "b"]
    assert [it.database_type for it in heads[0].column_types] == ["INTEGER", "VARCHAR"]
    assert len(heads) == 3 and run.kinds()[-3:] == ["started", "head", "ended"], "a head without rows"
    assert agent.run("SELECT a FROM t").succeeded().rows() == [("3",)]


def test_statements_beside_selects_return_their_rows(agent: StandInAgent) -> None:
    run = agent.run(
        "CREATE TABLE t AS SELECT 1 AS a, 'x' AS b",
        "SHOW TABLES",
        "PIVOT t ON b USING sum(a)",
        "EXPLAIN SELECT 1",
        "PRAGMA database_list",
        "SUMMARIZE t",
    ).succeeded()
    assert run.rows(1) == [("t",)]
    assert run.rows(2) == [("1",)]
    assert all(run.rows(statement) for statement in (3, 4, 5))


TYPES = {
    "true": "True",
    "CAST(-5 AS TINYINT)": "-5",
    "18446744073709551615": "18446744073709551615",
    "170141183460469231731687303715884105727": "170141183460469231731687303715884105727",
    "CAST('1234567890123456789012345678.1234567890' AS DECIMAL(38, 10))": "1234567890123456789012345678.1234567890",
    "CAST(0.1 AS FLOAT)": "0.1",
    "CAST('-inf' AS DOUBLE)": "-inf",
    "'ä😀'": "ä😀",
    "'\\xAA\\x00'::BLOB": "0xaa00",
    "DATE '1969-12-31'": "1969-12-31",
    "DATE '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "'infinity'::TIMESTAMP": "infinity",
    "TIMESTAMP '2020-01-02 03:04:05.6'": "2020-01-02 03:04:05.600000",
    "TIMESTAMPTZ '2020-01-02 03:04:05+05'": "2020-01-01 22:04:05+00:00",
    "'2020-01-02 03:04:05.123456789'::TIMESTAMP_NS": "2020-01-02 03:04:05.123456789",
    "TIME '01:02:03.5'": "01:02:03.5",
    "INTERVAL 1 month": "1 month",
    "[1, NULL]": "[1, NULL]",
    "{'a': 'x', 'b': [1.50]}": "{'a': x, 'b': [1.50]}",
    "MAP {'k': 1}": "{k=1}",
    "'b'::ENUM ('a', 'b')": "b",
    "'0101'::BIT": "0101",
    "'{\"a\": 1}'::JSON": '{"a": 1}',
    "'eeccb8c5-9943-b2bb-bb5e-222f4e14b687'::UUID": "eeccb8c5-9943-b2bb-bb5e-222f4e14b687",
    "NULL": "NULL",
}


def test_values_are_shown_as_duckdb_prints_them(tmp_path: Path) -> None:
    select = ", ".join(f"CASE WHEN i = 0 THEN {value} END" for value in TYPES)
    run = of_memory(tmp_path).run(
        "SET TimeZone = 'Asia/Tokyo'",
        f"SELECT {', '.join(TYPES)}",
        f"SELECT {select} FROM range(2) AS t(i) ORDER BY i",
    )
    expected = tuple(TYPES.values())
    assert run.succeeded().rows() == [expected, expected, ("NULL",) * len(TYPES)]


def test_columns_of_a_query_may_have_the_same_name(tmp_path: Path) -> None:
    run = of_memory(tmp_path).run('SELECT 1 AS a, 2 AS a, 3 AS "A""b"').succeeded()
    assert list(run.payloads("head")[0].column_names) == ["a", "a", 'A"b']
    assert run.rows() == [("1", "2", "3")]


def test_rows_before_an_error_are_sent(tmp_path: Path) -> None:
    run = of_memory(tmp_path).run(
        "SET threads = 1", "SELECT CAST(CASE WHEN i = 500000 THEN 'x' ELSE i END AS INT) FROM range(900000) AS t(i)"
    )
    assert "Could not convert string 'x'" in message(run)
    assert 0 < len(run.rows()) < 500000


def test_batches_are_small(tmp_path: Path) -> None:
    run = of_memory(tmp_path).run(
        "SELECT i, if(i % 7 = 0, NULL, repeat('x', 60000) || i), i % 2 = 0, NULL FROM range(3000) AS t(i)",
        "SELECT repeat('y', 17000000)",
    )
    batches = run.payloads("rows")
    assert max(it.ByteSize() for it in batches) < 2 * 512 * 1024
    rows = sorted(run.rows(0), key=lambda row: int(row[0]))
    expected = [(str(i), f"{'x' * 60000}{i}" if i % 7 else "NULL", str(i % 2 == 0), "NULL") for i in range(3000)]
    assert rows == expected
    assert "too large to be shown; select smaller columns" in message(run)


def test_errors_are_one_line_and_the_users(agent: StandInAgent) -> None:
    assert message(agent.run("SELECT 1,\n FROM\n nope")).startswith(
        "Catalog Error: Table with name nope does not exist!"
    )
    assert message(agent.run("SELEC 1")).startswith("Parser Error: syntax error")
    assert "zero byte" in message(agent.run("SELECT 1 AS a\0, 2 AS b")), "DuckDB reads to there"
    run = agent.run("SELECT 1", "SELECT 1 FROM nope", "SELECT 2")
    assert run.kinds() == ["started", "head", "rows", "ended", "started", "failure"]


def test_variables_of_this_program_are_no_tables(tmp_path: Path) -> None:
    for name in ("columns", "session", "TYPES"):
        assert "does not exist" in message(of_memory(tmp_path).run(f"SELECT * FROM {name}"))


def test_transactions_and_settings_are_the_users(agent: StandInAgent) -> None:
    agent.run("CREATE SCHEMA s", "CREATE TABLE s.t (a INT)").succeeded()
    agent.run("BEGIN", "INSERT INTO s.t VALUES (1)", "ROLLBACK", "INSERT INTO s.t VALUES (2)").succeeded()
    agent.run("BEGIN", "INSERT INTO s.t VALUES (3)").succeeded()
    run = agent.run("SELECT a, getvariable('v') FROM t", replay=("USE s", "SET VARIABLE v = 7"))
    assert run.succeeded().rows() == [("2", "7")]


def test_statement_that_is_not_repeatable_waits_for_durable_start(agent: StandInAgent) -> None:
    seen: list[bool] = []
    agent.before_acknowledging = lambda: seen.append((agent.folder / "out.csv").exists())
    agent.run(f"COPY (SELECT 1) TO '{agent.folder}/out.csv'").succeeded()
    assert seen == [False] and (agent.folder / "out.csv").exists()


def test_missing_file_is_created_only_by_choice(tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    assert "add ?mode=rwc" in message(StandInAgent(tmp_path, f"duckdb://{path}").run("CREATE TABLE t (a INT)"))
    creates = StandInAgent(tmp_path, f"duckdb://{path}?mode=rwc")
    assert not path.exists()
    creates.run("CREATE TABLE t (a INT)").succeeded()
    reads = StandInAgent(tmp_path, f"duckdb://{path}?mode=ro")
    assert "read-only" in message(reads.run("INSERT INTO t VALUES (1)"))
    assert reads.run("SELECT count(*) FROM t").succeeded().rows() == [("0",)]
    (tmp_path / "text.duckdb").write_text("no database")
    junk = StandInAgent(tmp_path, f"duckdb://{tmp_path}/text.duckdb")
    assert "not a valid DuckDB database file" in message(junk.run("SELECT 1"))


def test_files_of_a_single_user_are_open_but_for_the_state(agent: StandInAgent, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "a.csv").write_text("a,b\n1,x\n")
    limited(agent, state_folder=str(tmp_path / "state"))
    run = agent.run(f"CREATE TABLE t AS SELECT * FROM '{tmp_path}/a.csv'", f"COPY t TO '{tmp_path}/t.parquet'")
    run.succeeded()
    assert agent.run(f"SELECT * FROM '{tmp_path}/t.parquet'").succeeded().rows() == [("1", "x")]
    (tmp_path / "link").symlink_to("state")
    os.link(tmp_path / "data.duckdb", tmp_path / "state/second")
    os.link(tmp_path / "data.duckdb", tmp_path / "hard.duckdb")
    for name in ("state/x.duckdb", "link/x.duckdb", "hard.duckdb"):
        with pytest.raises(UserError, match="belongs to the state of the server"):
            reach(state_folder=str(tmp_path / "state")).own_file(f"{tmp_path}/{name}")


def reach(**limits: object) -> Reach:
    return Reach(json.dumps({"is_clients": True, **limits}))


@pytest.mark.parametrize("place", ["of several users", "in a Pod"])
def test_statements_name_no_file_but_for_a_single_user(tmp_path: Path, place: str) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    limits = reach() if place == "in a Pod" else reach(sqlite_folders=[str(tmp_path)], state_folder="/state")
    connection = opened.connect(parse(f"duckdb://{tmp_path}/x.duckdb?mode=rwc"), limits, reads_only=False)
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    for sql in (
        f"SELECT * FROM '{tmp_path}/a.csv'",
        f"SELECT * FROM glob('{tmp_path}/*')",
        f"COPY t TO '{tmp_path}/b.csv'",
        f"ATTACH '{tmp_path}/b.duckdb' AS b",
        f"EXPORT DATABASE '{tmp_path}/b'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        f"SET allowed_directories = ['{tmp_path}']",
        "SET memory_limit = '900GB'",
    ):
        with pytest.raises(duckdb.Error, match=r"disabled by configuration|has been locked"):
            connection.execute(sql)
    assert not list(tmp_path.glob("b*"))


def test_file_of_a_client_lies_below_the_folders(agent: StandInAgent, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/link").symlink_to("..")
    limits = {"sqlite_folders": [str(tmp_path / "open")], "private": [str(tmp_path / "open/own.duckdb")]}
    for path, why in (
        ("x.duckdb", "lies in no folder"),
        ("open/link/x.duckdb", "lies in no folder"),
        ("open/../x.duckdb", "lies in no folder"),
        ("none/x.duckdb", "lies in no folder"),
        ("open/own.duckdb", "it is the operator's"),
    ):
        with pytest.raises(UserError, match=why):
            reach(**limits).own_file(f"{tmp_path}/{path}")
    # The operator's may lie anywhere.
    assert reach(is_clients=False, **limits).own_file(f"{tmp_path}/x.duckdb") == f"{tmp_path}/x.duckdb"
    limited(agent, **limits)
    assert "lies in no folder" in message(agent.run("CREATE TABLE t (a INT)"))
    agent.dsn = f"duckdb://{tmp_path}/open/x.duckdb?mode=rwc"
    agent.run("CREATE TABLE t (a INT)").succeeded()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that has the file open to write, until its input ends."""
    code = f"import duckdb, sys; c = duckdb.connect('{tmp_path}/data.duckdb'); print(1, flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    yield process
    process.communicate()


def test_file_of_another_program_is_waited_for(agent: StandInAgent, holder: subprocess.Popen[str]) -> None:
    def release(program: subprocess.Popen[bytes]) -> None:
        assert holder.stdin is not None
        holder.stdin.close()

    agent.while_running = release
    agent.run("CREATE TABLE t (a INT)").succeeded()
    holder.stdin = None


def test_file_that_stays_open_elsewhere_is_busy(
    agent: StandInAgent, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "LOCK_SECONDS", 0.0)
    for reads_only in (True, False):
        with pytest.raises(DatabaseBusy, match=f"process {holder.pid} has it open.*; close it there"):
            opened._await_lock(f"{agent.folder}/data.duckdb", reads_only=reads_only)


def test_steps_that_read_share_the_file(agent: StandInAgent) -> None:
    agent.run("CREATE TABLE t AS SELECT 1 AS a").succeeded()
    others: list[Run] = []

    def read_too(program: subprocess.Popen[bytes]) -> None:
        folder = agent.folder / "other"
        folder.mkdir()
        others.append(StandInAgent(folder, agent.dsn).run(reading("SELECT a FROM t")))
        program.terminate()

    agent.while_running = read_too
    endless = "SELECT sum(a.i * b.i) FROM t, range(10000000) AS a(i), range(10000000) AS b(i)"
    assert agent.run(reading(endless)).exit_code == -signal.SIGTERM
    assert others[0].succeeded().rows() == [("1",)]


def reading(sql: str) -> dict[str, object]:
    return {"kind": "standard", "sql": sql, "repeatable": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("columns", ["sum(a.i * b.i)", "a.i * b.i"])
def test_signal_ends_the_running_statement(agent: StandInAgent, number: int, columns: str) -> None:
    sql = f"SELECT {columns} FROM range(10000000) AS a(i), range(10000000) AS b(i)"
    programs: list[subprocess.Popen[bytes]] = []
    agent.while_running = programs.append
    # It is acknowledged directly before the statement runs.
    agent.before_acknowledging = lambda: programs[0].send_signal(number)
    run = agent.run("CREATE TABLE t (a INT)", sql)
    assert run.exit_code == -number
    assert not run.payloads("failure")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(
        SubmitterError, match=r"cannot read DuckDB: .* has no package duckdb; install it: .* -m pip install"
    ):
        opened.library()


def train(agent: StandInAgent, select: str, **fields: object) -> Run:
    statement = {
        "kind": "train",
        "select": select,
        "sql": f"{select} TO TRAIN …",
        "label": "y",
        "model": "m",
        "output": "m",
        "estimator": "xgboost.gbtree",
        "attributes": {"objective": "multi:softmax", "train.num_boost_round": 3},
        "columns": {},
        "pretrained": None,
    }
    return agent.run({**statement, **fields})


def predict(agent: StandInAgent, select: str, table: str = "p", kind: str = "predict", **fields: object) -> Run:
    statement = {"kind": kind, "select": select, "result_table": table, "result_column": "class", "model": "m"}
    return agent.run({**statement, "model_dir": "m", "repeatable": False, **fields})


def test_model_is_trained_on_files_and_predicts_into_a_table(agent: StandInAgent, tmp_path: Path) -> None:
    file = f"{tmp_path}/d.parquet"
    agent.run(f"COPY (SELECT i / 100 AS a, i % 3 AS y FROM range(300) AS t(i)) TO '{file}'").succeeded()
    run = train(agent, f"SELECT * FROM '{file}'", attributes={"train.num_boost_round": 3}).succeeded()
    assert "loaded 300 row(s)" in run.stdout
    kept = "a, y, [y] AS l, TIMESTAMPTZ '2020-01-01 00:00:00+00' AS z, (y + 0.10)::DECIMAL(5, 2) AS d, NULL::UUID AS u"
    select = f"SELECT {kept} FROM '{file}' ORDER BY a DESC"
    run = predict(agent, select).succeeded()
    assert run.kinds() == ["started", "commit", "ended"]
    assert "predicted 300 row(s) into p" in run.stdout
    described = [(name, kind) for name, kind, *_ in agent.run("DESCRIBE p").rows()]
    assert described == [
        ("a", "DOUBLE"),
        ("y", "BIGINT"),
        ("l", "BIGINT[]"),
        ("z", "TIMESTAMP WITH TIME ZONE"),
        ("d", "DECIMAL(5,2)"),
        ("u", "UUID"),
        ("class", "BIGINT"),
    ]
    differ = f"SELECT count(*) FROM ({select} EXCEPT ALL SELECT * EXCLUDE class FROM p)"
    run = agent.run(
        "SELECT count(*), count(DISTINCT a), max(a) FROM p", differ.replace(" ORDER BY a DESC", "")
    ).succeeded()
    assert run.rows() == [("300", "300", "2.99"), ("0",)]
    # The next attempt of another job replaces it.
    run = predict(agent, select).succeeded()
    assert "replaced table p (300 rows)" in run.stdout


def test_explain_writes_a_row_for_each_class(trained: StandInAgent) -> None:
    predict(trained, "SELECT * FROM d", "shap", "explain", attributes={}).succeeded()
    ((rows, classes),) = trained.run("SELECT count(*), count(DISTINCT class) FROM shap").rows()
    assert (rows, classes) == ("3000", "3")
    run = trained.run({"kind": "evaluate", "select": "SELECT * FROM d", "label": "y", "model": "m", "model_dir": "m"})
    assert run.succeeded().rows()[0][0] == "accuracy"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table `d` in `data.duckdb`, and a model `m` of it."""
    folder = tmp_path_factory.mktemp("model")
    agent = StandInAgent(folder, f"duckdb://{folder}/data.duckdb?mode=rwc")
    agent.run(f"CREATE TABLE d AS {ROWS_1000}").succeeded()
    train(agent, "SELECT * FROM d").succeeded()
    return folder


@pytest.fixture
def trained(agent: StandInAgent, model: Path) -> StandInAgent:
    shutil.copytree(model, agent.folder, dirs_exist_ok=True)
    return agent


def test_tables_of_others_are_not_replaced(trained: StandInAgent) -> None:
    trained.run(
        "CREATE TABLE mine AS SELECT 1 AS x",
        "CREATE VIEW seen AS SELECT 1 AS x",
        "CREATE TABLE parent (x INT PRIMARY KEY)",
        "CREATE TABLE child (x INT REFERENCES parent (x))",
    ).succeeded()
    for table, why in (
        ("mine", "it exists (1 row) and this release of SQLFlow did not make it"),
        ("seen", "it is a view"),
        ("parent", "a foreign key of table child depends on it"),
        ("nowhere.t", "there is no schema nowhere"),
        ("d", "did not make it"),
    ):
        assert why in message(predict(trained, "SELECT * FROM d", table)), table
    replaces = {"attributes": {"result.replace": True}}
    run = predict(trained, "SELECT * FROM d", "mine", **replaces).succeeded()
    assert "replaced table mine (1 row); lost with it: column x" in run.stdout


def test_result_table_that_its_statement_reads_is_kept(trained: StandInAgent) -> None:
    predict(trained, "SELECT * FROM d").succeeded()
    trained.run("CREATE VIEW v AS SELECT a, y FROM p").succeeded()
    for select in ("SELECT a, y FROM main.p", 'SELECT a, y FROM "P"', "SELECT a, y FROM v"):
        assert "read it" in (text := message(predict(trained, select))) or "reads it" in text
    trained.run("CREATE SCHEMA elsewhere", "CREATE TABLE elsewhere.p AS SELECT a, y FROM d LIMIT 10").succeeded()
    predict(trained, "SELECT * FROM elsewhere.p").succeeded()
    assert trained.run("SELECT count(*) FROM p").rows() == [("10",)]


def tables(agent: StandInAgent) -> list[str]:
    return [name for (name,) in agent.run("SHOW TABLES").succeeded().rows()]


def test_refused_grant_leaves_the_old_table(trained: StandInAgent) -> None:
    trained.answer_commit = lambda process: refused()
    run = predict(trained, "SELECT * FROM d")
    failure = run.failure()
    assert failure.not_executed and not failure.user_error
    assert failure.message == "cannot commit: the agent refused the grant: another attempt has started"
    assert tables(trained) == ["d"]


def test_killed_program_leaves_a_table_that_the_cleanup_drops(trained: StandInAgent) -> None:
    def kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()

    trained.answer_commit = kill
    assert predict(trained, "SELECT * FROM d").exit_code == -signal.SIGKILL
    assert tables(trained) == ["d", "p__01jtest_1_1"]
    trained.answer_commit = lambda process: granted()
    task = {"kind": "predict", "result_table": "p"}
    run = trained.run(task, clean_up={"granted_attempt": 1}).succeeded()
    assert run.stdout == "table p was not replaced: the statement ended before that\n"
    assert tables(trained) == ["d"]
    predict(trained, "SELECT * FROM d").succeeded()
    run = trained.run(task, clean_up={"granted_attempt": 1}).succeeded()
    assert run.stdout == "table p was replaced: it holds the statement's result\n"


def test_error_while_rows_are_written_drops_the_staging_table(trained: StandInAgent) -> None:
    select = "SELECT CAST(CASE WHEN a = 900 THEN 'x' ELSE a END AS INT) AS a, y FROM d"
    assert "Could not convert" in message(predict(trained, select))
    assert tables(trained) == ["d"]


def checked_before_training(agent: StandInAgent, *later: dict[str, object]) -> Run:
    """Trains with later statements."""
    more = {"repeatable": False, "attributes": {}, "hangs_on_row": False}
    ahead = [{"index": place, **more, **it} for place, it in enumerate(later, start=1)]
    statement = {"kind": "train", "select": "SELECT * FROM d", "sql": "…", "label": "y", "model": "m", "output": "m"}
    fields = {
        "estimator": "xgboost.gbtree",
        "attributes": {"train.num_boost_round": 1},
        "columns": {},
        "pretrained": None,
    }
    return agent.run({**statement, **fields}, ahead=ahead)


def test_later_statements_are_checked_before_the_training(agent: StandInAgent) -> None:
    agent.run(f"CREATE TABLE d AS {ROWS_1000}", "CREATE TABLE mine (a INT)").succeeded()
    uses_model = {"kind": "predict", "select": "SELECT * FROM d", "model": "m", "result_column": "c"}
    for later, why in (
        ({"kind": "standard", "sql": "SELECT b FROM d", "effect": ""}, '"b" not found'),
        ({"kind": "standard", "sql": "INSERT INTO none VALUES (1)", "effect": "rows"}, "none does not exist"),
        ({"kind": "standard", "sql": "CREATE TABLE e (", "effect": "objects"}, "syntax error"),
        (
            {"kind": "standard", "sql": "CREATE TABLE s.e AS SELECT b FROM d", "effect": "objects"},
            '"b" not found',
        ),
        ({**uses_model, "select": "SELECT y FROM d", "result_table": "p"}, "column a does not exist"),
        ({**uses_model, "result_table": "mine"}, "did not make it"),
    ):
        text = message(checked_before_training(agent, later))
        assert text.startswith("statement 2 (") and why in text, text


def test_later_statements_may_write_though_the_training_reads(agent: StandInAgent) -> None:
    agent.run(f"CREATE TABLE d AS {ROWS_1000}").succeeded()
    checked_before_training(
        agent,
        {"kind": "standard", "sql": "INSERT INTO d VALUES (1, 1)", "effect": "rows"},
        {"kind": "predict", "select": "SELECT * FROM d", "model": "m", "result_table": "p", "result_column": "c"},
        {"kind": "standard", "sql": "USE main", "effect": "session"},
        {"kind": "standard", "sql": "CREATE TABLE e (a INT)", "effect": "objects", "names": ["e"]},
    ).succeeded()


def test_signal_while_rows_are_written_drops_the_staging_table(trained: StandInAgent) -> None:
    log = trained.folder / "data.duckdb.wal"

    def terminate(program: subprocess.Popen[bytes]) -> None:
        while not (log.exists() and log.stat().st_size > 1_000_000):
            time.sleep(0.01)
        program.terminate()

    trained.while_running = terminate
    run = predict(trained, "SELECT i AS a, i % 3 AS y FROM range(1000000000) AS t(i)")
    assert run.exit_code != 0 and not run.payloads("commit")
    trained.while_running = None
    assert tables(trained) == ["d"]
