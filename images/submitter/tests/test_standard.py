"""Standard statements in a real submitter process."""

from pathlib import Path

import pytest
from agent import StandInAgent

BATCH_BYTES = 512 * 1024
FIRST_BATCH_ROWS = 100
AWKWARD = "${a.b} `x` $(id) \"q\" %s %(p)s {0} \\ ; -- no comment /* nor this */ \n\t'' é😀"


def test_result_set_is_sent_as_head_rows_and_end(agent: StandInAgent) -> None:
    run = agent.run("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL").succeeded()
    assert run.kinds() == ["started", "head", "rows", "ended"]
    assert run.rows() == [("1", "x"), ("2", "NULL")]
    (ended,) = run.payloads("ended")
    assert ended.duration_micros > 0
    assert not ended.HasField("rows_affected")


def test_result_set_without_rows_has_a_head(agent: StandInAgent) -> None:
    run = agent.run("SELECT 1 AS a WHERE 1 = 0" if "mysql" not in agent.dsn else "SELECT 1 AS a FROM DUAL WHERE 1 = 0")
    assert run.succeeded().kinds() == ["started", "head", "ended"]
    assert list(run.payloads("head")[0].column_names) == ["a"]


def test_changed_rows_are_counted(agent: StandInAgent) -> None:
    run = agent.run(
        "DROP TABLE IF EXISTS counted",
        "CREATE TABLE counted (a int)",
        "INSERT INTO counted VALUES (1), (2), (3)",
        "UPDATE counted SET a = 7 WHERE a > 1",
        "DELETE FROM counted WHERE a = 0",
    ).succeeded()
    ended = run.payloads("ended")
    assert [end.rows_affected for end in ended[2:]] == [3, 2, 0]
    assert all(end.HasField("rows_affected") for end in ended[2:])


def test_text_reaches_the_database_byte_for_byte(agent: StandInAgent) -> None:
    literal = AWKWARD.replace("\\", "\\\\") if "mysql" in agent.dsn else AWKWARD
    run = agent.run(f"SELECT '{literal}' AS v").succeeded()
    assert run.payloads("rows")[0].columns[0].strings.values[0] == AWKWARD.replace("''", "'")


def test_transactions_are_left_to_the_user(agent: StandInAgent) -> None:
    agent.run("DROP TABLE IF EXISTS held", "CREATE TABLE held (a int)").succeeded()
    agent.run("BEGIN", "INSERT INTO held VALUES (1)", "ROLLBACK", "INSERT INTO held VALUES (2)").succeeded()
    # It is rolled back when the connection closes.
    agent.run("BEGIN", "INSERT INTO held VALUES (3)").succeeded()
    assert agent.run("SELECT a FROM held").rows() == [("2",)]


def test_statement_that_is_not_repeatable_waits_for_durable_start(agent: StandInAgent) -> None:
    agent.run("DROP TABLE IF EXISTS waited", "CREATE TABLE waited (a int)").succeeded()
    seen = []

    def look() -> None:
        # The submitter is waiting for the acknowledgement here.
        other = StandInAgent(agent.folder / "other", agent.dsn)
        other.folder.mkdir()
        seen.append(other.run({"kind": "standard", "sql": "SELECT count(*) FROM waited"}).rows())

    agent.before_acknowledging = look
    run = agent.run("INSERT INTO waited VALUES (1)").succeeded()
    assert seen == [[("0",)]]
    assert run.payloads("ended")[0].rows_affected == 1


def test_ten_megabytes_of_sql_are_executed(agent: StandInAgent) -> None:
    run = agent.run(f"SELECT length('{'é' * 5_000_000}') AS n").succeeded()
    assert run.rows() == [("10000000" if "mysql" in agent.dsn else "5000000",)]


def test_postgresql_notices_are_printed(postgresql_dsn: str, tmp_path: Path) -> None:
    run = StandInAgent(tmp_path, postgresql_dsn).run("DO $$ BEGIN RAISE NOTICE 'so far %', 7; END $$").succeeded()
    assert run.stderr == "NOTICE: so far 7\n"


def test_error_ends_the_step(agent: StandInAgent) -> None:
    run = agent.run("SELECT 1", "SELECT *\nFROM\n  no_such_table", "SELECT 2")
    failure = run.failure()
    assert failure.user_error
    assert not failure.transient
    assert failure.detail == ""
    assert "no_such_table" in failure.message
    assert run.frames[-1].statement == 1
    assert run.kinds() == ["started", "head", "rows", "ended", "started", "failure"]


FAILS_AT_ROW_5000 = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 9000) "
    "SELECT CASE i WHEN 5000 THEN abs(-9223372036854775807 - 1) ELSE i END FROM s",
    "mysql": "SELECT (SELECT t.seq FROM seq_1_to_2 AS t WHERE t.seq = 1 OR s.seq = 5000) FROM seq_1_to_9000 AS s",
    "postgresql": "SELECT 1 / (5000 - i) FROM generate_series(1, 9000) AS i",
}


def test_misspelt_table_gets_suggestions(agent: StandInAgent) -> None:
    for sql in ("DROP TABLE IF EXISTS flowers", "CREATE TABLE flowers (a INT)"):
        agent.run({"kind": "standard", "sql": sql}).succeeded()
    message = agent.run({"kind": "standard", "sql": "SELECT * FROM flowres"}).failure().message
    assert message.endswith("; did you mean flowers?"), message
    # A failed transaction runs no further query.
    assert "far_away" in agent.run({"kind": "standard", "sql": "SELECT * FROM far_away"}).failure().message
    agent.run({"kind": "standard", "sql": "DROP TABLE flowers"}).succeeded()


@pytest.mark.parametrize(
    ("sql", "meant"),
    [
        ("SELECT petal_lenght FROM flowers", "petal_length"),
        ("SELECT f.petal_lenght FROM flowers AS f", "petal_length"),
        ("SELECT a FROM flowers -- the first\nWHERE sepal_widht > 2", "sepal_width"),
        ("INSERT INTO flowers (a, petal_lenght) VALUES (1, 2)", "petal_length"),
        ("UPDATE flowers SET petal_lenght = 1", "petal_length"),
        ("SELECT nothing_like_it FROM flowers", None),
        ("ALTER TABLE flowers DROP COLUMN petal_lenght", None),
    ],
)
def test_misspelt_column_gets_suggestions(agent: StandInAgent, sql: str, meant: str | None) -> None:
    columns = "a int, petal_length int, sepal_width int"
    for make in ("DROP TABLE IF EXISTS flowers", f"CREATE TABLE flowers ({columns})"):
        agent.run({"kind": "standard", "sql": make}).succeeded()
    message = agent.run({"kind": "standard", "sql": sql}).failure().message
    # PostgreSQL often has a hint of its own.
    own = f'Perhaps you meant to reference the column "flowers.{meant}"', f'the column "f.{meant}"'
    assert (meant is None) == ("did you mean" not in message and "Perhaps" not in message), message
    assert meant is None or message.endswith(f"; did you mean {meant}?") or any(text in message for text in own)
    agent.run({"kind": "standard", "sql": "DROP TABLE flowers"}).succeeded()


def test_misspelt_column_in_train_gets_suggestions(agent: StandInAgent) -> None:
    for make in ("DROP TABLE IF EXISTS flowers", "CREATE TABLE flowers (a int, petal_length int)"):
        agent.run({"kind": "standard", "sql": make}).succeeded()
    select = "SELECT a, petal_lenght FROM flowers"
    train = {
        "kind": "train",
        "select": select,
        "sql": f"{select} TO TRAIN …",
        "label": "a",
        "model": "m",
        "output": "m",
    }
    train |= {"estimator": "xgboost.gbtree", "attributes": {}, "columns": {}, "pretrained": None, "output": "m"}
    assert "petal_length" in agent.run(train).failure().message
    agent.run({"kind": "standard", "sql": "DROP TABLE flowers"}).succeeded()


def test_rows_before_an_error_are_sent(agent: StandInAgent) -> None:
    run = agent.run(FAILS_AT_ROW_5000[agent.dsn.partition(":")[0]])
    assert run.failure().user_error
    assert 100 <= len(run.rows()) < 5000


def test_internal_error_has_its_traceback_as_detail(sqlite_agent: StandInAgent) -> None:
    failure = sqlite_agent.run({"kind": "show_train", "model": "m", "model_dir": "nowhere"}).failure()
    assert not failure.user_error
    assert failure.message.startswith("cannot read the model in nowhere")
    assert "Traceback" in failure.detail


def test_long_error_message_is_truncated(agent: StandInAgent) -> None:
    failure = agent.run(f"SELECT {'x' * 100_000}").failure()
    assert failure.user_error
    assert len(failure.message) < 2100


def test_syntax_error_has_its_line(mysql_dsn: str, postgresql_dsn: str, tmp_path: Path) -> None:
    for dsn in (mysql_dsn, postgresql_dsn):
        failure = StandInAgent(tmp_path, dsn).run("SELECT 1,\n 2,\n FROM x").failure()
        assert failure.message.startswith("line 3: ")


def test_use_and_set_are_replayed(mysql_dsn: str, tmp_path: Path) -> None:
    agent = StandInAgent(tmp_path, mysql_dsn)
    run = agent.run("SELECT DATABASE(), @x", replay=("USE mysql", "SET @x = 'a b'")).succeeded()
    assert run.rows() == [("mysql", "a b")]
    assert {frame.statement for frame in run.frames} == {0}


def test_use_carries_over_within_a_step(mysql_dsn: str, tmp_path: Path) -> None:
    run = StandInAgent(tmp_path, mysql_dsn).run("USE mysql", "SHOW TABLES LIKE 'db'").succeeded()
    assert run.rows() == [("db",)]


def test_use_is_rejected_by_databases_without_it(sqlite_dsn: str, postgresql_dsn: str, tmp_path: Path) -> None:
    for dsn in (sqlite_dsn, postgresql_dsn):
        assert "USE" in StandInAgent(tmp_path, dsn).run("USE d").failure().message


def test_call_can_return_several_result_sets(mysql_dsn: str, tmp_path: Path) -> None:
    run = (
        StandInAgent(tmp_path, mysql_dsn)
        .run(
            "DROP PROCEDURE IF EXISTS several",
            "CREATE PROCEDURE several() BEGIN SELECT 1 AS a; SELECT 2 AS b, 3 AS c; END",
            "CALL several()",
            "SELECT 4",
        )
        .succeeded()
    )
    assert [list(head.column_names) for head in run.payloads("head")] == [["a"], ["b", "c"], ["4"]]
    assert run.rows(2) == [("1",), ("2", "3")]
    assert run.rows(3) == [("4",)]


def test_first_batch_is_small(agent: StandInAgent) -> None:
    rows = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 900) SELECT i FROM s"
    counts = [batch.count for batch in agent.run(rows).succeeded().payloads("rows")]
    assert sum(counts) == 900
    assert counts[0] < 2 * FIRST_BATCH_ROWS


def test_large_values_make_small_batches(agent: StandInAgent) -> None:
    text = {"sqlite": "printf('%.*c', 100000, 'x')", "mysql": "REPEAT('x', 100000)"}.get(
        agent.dsn.partition(":")[0], "repeat('x', 100000)"
    )
    series = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 300)"
    run = agent.run(f"{series} SELECT i, {text} AS v FROM s").succeeded()
    batches = run.payloads("rows")
    assert sum(batch.count for batch in batches) == 300
    assert max(batch.ByteSize() for batch in batches) < 2 * BATCH_BYTES


def test_row_can_be_larger_than_a_mysql_packet(mysql_dsn: str, tmp_path: Path) -> None:
    run = StandInAgent(tmp_path, mysql_dsn).run("SELECT LENGTH(REPEAT('x', 17000000)) AS n, REPEAT('y', 300) AS v")
    assert run.succeeded().rows() == [("17000000", "y" * 300)]
    failure = StandInAgent(tmp_path, mysql_dsn).run("SELECT REPEAT('x', 17000000)").failure()
    assert failure.user_error
    assert "limit" in failure.message


def test_nul_character_never_truncates_a_statement(agent: StandInAgent) -> None:
    run = agent.run("SELECT 1 AS a\0, 2 AS b")
    assert run.exit_code == 1
    assert run.failure().user_error


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO STDOUT", "COPY pg_class FROM STDIN"])
def test_copy_to_the_client_is_rejected(postgresql_dsn: str, tmp_path: Path, sql: str) -> None:
    assert StandInAgent(tmp_path, postgresql_dsn).run(sql).failure().user_error


def test_statement_of_another_database_has_a_hint_in_its_error(agent: StandInAgent) -> None:
    statement = {"kind": "standard", "sql": "DESCRIB flowers", "hint": "write SELECT"}
    assert agent.run(statement).failure().message.endswith("; write SELECT")
    assert agent.run(statement | {"sql": "SELECT 1"}).succeeded().rows() == [("1",)]
