"""PREDICT, and result tables."""

import os
import signal
import subprocess
from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner, with_iris_model
from iris import COLUMNS, FEATURES
from tables import make

from sqlflow_submitter.errors import CommitRefused, UserError

IRIS = f"SELECT {FEATURES}, class FROM iris"


def tables(runner: Runner) -> set[str]:
    """Returns the tables that these tests may have created."""
    sql = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "mysql": "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'",
        "postgresql": "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    }[runner.dsn.partition(":")[0]]
    return {name for (name,) in runner.sql(sql) if name.startswith("outcome")}


def test_predict_writes_the_selects_columns_and_the_label(iris: Runner) -> None:
    run = iris.predict()
    assert run.kinds() == ["started", "commit", "ended"]
    described = iris.describe("SELECT * FROM outcome")
    assert [column.name for column in described] == [*COLUMNS, "class", "name"]
    same = iris.sql(
        "SELECT count(*) FROM outcome AS o JOIN (SELECT class AS c, name AS n FROM iris GROUP BY class, name) i "
        "ON o.class = i.c AND o.name = i.n"
    )
    assert int(same[0][0]) >= 145
    assert iris.sql("SELECT count(*), min(sepal_length), max(petal_width) FROM outcome") == [("150", "4.3", "2.5")]
    assert tables(iris) == {"outcome"}


def test_predict_keeps_every_type(iris: Runner) -> None:
    extra = {
        "sqlite": "x'00ff27' AS b, 9223372036854775807 AS i, 'a''\\ é' AS t, NULL AS n, 0.1 AS f",
        "mysql": "X'00ff27' AS b, 18446744073709551615 AS i, 'a''\\\\ é' AS t, NULL AS n, 0.1e0 AS f, 1.50 AS d, "
        "TIMESTAMP '2024-02-03 04:05:06.5' AS ts, b'101' AS bits, CONVERT('é' USING latin1) AS l1, "
        "CAST('12:30:00' AS TIME) AS tm",
        "postgresql": r"'\x00ff27'::bytea AS b, 9223372036854775807 AS i, E'a\'\\ é\t\n' AS t, NULL AS n, 0.1::float8 "
        "AS f, 1.50::numeric(9,2) AS d, '2024-02-03 04:05:06.5+02'::timestamptz AS ts, ARRAY['a\\b', NULL] AS arr, "
        "true AS yes, 'infinity'::date AS inf, 'NaN'::float8 AS nan",
    }[iris.dsn.partition(":")[0]]
    select = f"SELECT {FEATURES}, {extra} FROM iris -- with a comment"
    iris.predict(select)
    written = [column.database_type for column in iris.describe("SELECT * FROM outcome")]
    read = [column.database_type for column in iris.describe(select)]
    columns = ", ".join(item.rpartition(" AS ")[2] for item in extra.split(", ") if " AS " in item)
    before = iris.sql(f"SELECT {columns} FROM ({select}\n) AS q LIMIT 1")
    assert iris.sql(f"SELECT DISTINCT {columns} FROM outcome") == before
    if "sqlite" not in iris.dsn:
        # The type of the literal NULL may vary, and a bit string may become bytes.
        differing = [(a, b) for a, b in zip(read, written, strict=False) if a.split("(")[0] != b.split("(")[0]]
        assert len(differing) <= 2, differing


def test_predict_replaces_its_older_result_and_reports_it(iris: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    iris.predict("SELECT * FROM iris WHERE class = 1")
    assert "replaced" not in capfd.readouterr().out
    iris.predict()
    assert "replaced table outcome (50 rows)\n" in capfd.readouterr().out
    assert iris.sql("SELECT count(*) FROM outcome") == [("150",)]
    assert tables(iris) == {"outcome"}


REPLACE: dict[str, object] = {"result.replace": True}


def test_table_of_a_user_is_replaced_only_with_result_replace(iris: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    iris.sql("CREATE TABLE outcome (precious INT)", "INSERT INTO outcome VALUES (1), (2)")
    evaluate = {"kind": "evaluate", "select": "SELECT * FROM iris", "label": "name", "model": "m", "model_dir": "m"}
    explain = {"kind": "explain", "select": "SELECT * FROM iris", "model": "m", "model_dir": "m"}
    rejects = r"cannot write table outcome: it exists \(2 rows\) and this release .* did not make it; .*replace = true"
    for statement in (evaluate, explain):
        with pytest.raises(UserError, match=rejects):
            iris.run(**statement, result_table="outcome")
    with pytest.raises(UserError, match=rejects):
        iris.predict()
    assert iris.sql("SELECT precious FROM outcome ORDER BY 1") == [("1",), ("2",)]
    iris.predict(attributes=REPLACE)
    assert "replaced table outcome (2 rows); lost with it: column precious\n" in capfd.readouterr().out
    assert iris.sql("SELECT count(*) FROM outcome") == [("150",)]
    # From now on it has a marker, whichever statement created it.
    for statement in (evaluate, explain):
        iris.run(**statement, result_table="outcome")
    iris.predict()
    assert tables(iris) == {"outcome"}


def test_table_recreated_by_a_user_is_not_replaced(iris: Runner) -> None:
    iris.predict()
    iris.sql("DROP TABLE outcome", "CREATE TABLE outcome (precious INT)")
    with pytest.raises(UserError, match="SQLFlow did not make it"):
        iris.predict()
    assert tables(iris) == {"outcome"}


def test_renamed_or_copied_table_is_not_replaced(iris: Runner) -> None:
    iris.predict()
    iris.sql("ALTER TABLE outcome RENAME TO outcome_kept")
    copy = {"sqlite": "AS SELECT * FROM outcome_kept"}.get(iris.dsn.partition(":")[0])
    copy = copy or ("LIKE outcome_kept" if "mysql" in iris.dsn else "(LIKE outcome_kept INCLUDING ALL)")
    iris.sql("DROP TABLE IF EXISTS outcome_copy", f"CREATE TABLE outcome_copy {copy}")
    for table in ("outcome_kept", "outcome_copy"):
        with pytest.raises(UserError, match=r"SQLFlow did not make it|renamed: SQLFlow made it as \w+\.outcome;"):
            iris.predict(table=table)
    iris.predict()
    assert tables(iris) == {"outcome", "outcome_kept", "outcome_copy"}
    iris.sql("DROP TABLE outcome_kept", "DROP TABLE outcome_copy")


def test_table_that_the_statement_reads_is_replaced_only_with_result_replace(iris: Runner) -> None:
    schema = {"sqlite": "main", "mysql": "test", "postgresql": "public"}[iris.dsn.partition(":")[0]]
    iris.predict("SELECT * FROM iris WHERE class = 1")
    iris.sql("DROP VIEW IF EXISTS seen", "CREATE VIEW seen AS SELECT * FROM outcome")
    read = "cannot write table .*outcome: (the statement reads it; choose another name|seen depends on it)"
    for select in (
        "SELECT * FROM outcome",
        f"SELECT * FROM {schema}.outcome",
        "SELECT * FROM iris WHERE class IN (SELECT class FROM outcome AS o)",
        "SELECT * FROM seen",
    ):
        with pytest.raises(UserError, match=read):
            iris.predict(select)
        with pytest.raises(UserError, match=read):
            iris.predict(select, table=f"{schema}.outcome")
    assert iris.sql("SELECT count(*) FROM outcome") == [("50",)]
    if "postgresql" in iris.dsn:
        with pytest.raises(UserError, match=r"cannot write table outcome: seen depends on it, .*; drop that first"):
            iris.predict()
    iris.sql("DROP VIEW seen")
    # A column or alias of that name is not a table, and neither is an alias with the schema's name.
    alias = schema if schema != "main" else "m"
    iris.predict(f"SELECT {alias}.*, {alias}.class AS outcome FROM iris AS {alias} WHERE ({alias}.class = 1)")
    iris.predict("SELECT outcome.*, class AS outcome FROM iris AS outcome")
    assert iris.sql("SELECT count(*) FROM outcome") == [("150",)]
    iris.predict("SELECT * FROM outcome WHERE sepal_length > 100", attributes=REPLACE)
    assert iris.sql("SELECT count(*) FROM outcome") == [("0",)]
    assert tables(iris) == {"outcome"}


def test_predict_writes_to_a_schema(iris: Runner) -> None:
    schema = {"sqlite": "main", "mysql": "test", "postgresql": "public"}[iris.dsn.partition(":")[0]]
    iris.predict(table=f"{schema}.outcome", column="Prediction")
    column = "prediction"
    assert iris.sql(f"SELECT count({column}) FROM {schema}.outcome") == [("150",)]
    with pytest.raises(UserError):
        iris.predict(table="no_such_schema.outcome")


def test_predict_writes_to_a_database_and_schema(postgresql_dsn: str, tmp_path: Any) -> None:
    runner = with_iris_model(Runner(postgresql_dsn, tmp_path))
    runner.predict(table="postgres.public.outcome")
    assert runner.sql("SELECT count(*) FROM outcome") == [("150",)]


def test_numbers_and_class_numbers_keep_their_type(iris: Runner) -> None:
    iris.train(f"SELECT {FEATURES} FROM iris", "petal_width", attributes={"objective": "reg:squarederror"})
    iris.predict(column="width")
    ((low, high),) = iris.sql("SELECT min(width), max(width) FROM outcome")
    assert 0 < float(low) < 0.5
    assert 1.8 < float(high) < 3
    iris.train(IRIS, "class", attributes={"objective": "multi:softprob"})
    iris.predict(column="class")
    assert iris.sql("SELECT DISTINCT class FROM outcome ORDER BY class") == [("0",), ("1",), ("2",)]
    iris.train(f"{IRIS} WHERE class < 2", "class", attributes={"objective": "binary:logistic"})
    iris.predict("SELECT * FROM iris WHERE class < 2", column="p")
    assert iris.sql("SELECT count(*) FROM outcome WHERE p = class") == [("100",)]


def test_boolean_labels_stay_booleans(postgresql_dsn: str, tmp_path: Any) -> None:
    runner = with_iris_model(Runner(postgresql_dsn, tmp_path))
    runner.train(
        f"SELECT {FEATURES}, class = 0 AS is_setosa FROM iris", "is_setosa", attributes={"objective": "binary:logistic"}
    )
    runner.predict(column="is_setosa")
    assert runner.sql("SELECT is_setosa, count(*) FROM outcome GROUP BY 1 ORDER BY 1") == [
        ("False", "100"),
        ("True", "50"),
    ]


def test_missing_input_column_is_named(iris: Runner) -> None:
    with pytest.raises(UserError, match="the model's column petal_width does not exist; did you mean"):
        iris.predict("SELECT sepal_length, sepal_width, petal_length FROM iris")
    with pytest.raises(UserError, match=r"attribute predict\.x does not exist"):
        iris.predict(attributes={"predict.x": 1})
    assert tables(iris) == set()


def test_unreadable_value_leaves_the_old_table(iris: Runner) -> None:
    iris.predict()
    bad = "SELECT sepal_length, sepal_width, petal_length, name AS petal_width FROM iris"
    advice = "the model reads a number there: select a number"
    with pytest.raises(UserError, match=f"column petal_width, row 1: 'setosa' is not a number; {advice}$"):
        iris.predict(bad)
    assert iris.sql("SELECT count(*) FROM outcome") == [("150",)]
    assert tables(iris) == {"outcome"}


def test_refused_commit_leaves_the_old_table(iris: Runner) -> None:
    iris.predict("SELECT * FROM iris WHERE class = 0")
    iris.grant = False
    with pytest.raises(CommitRefused):
        iris.predict()
    assert iris.sql("SELECT count(*) FROM outcome") == [("50",)]
    assert tables(iris) == {"outcome"}


PREDICT = {
    "kind": "predict",
    "select": "SELECT * FROM iris",
    "result_table": "outcome",
    "result_column": "name",
    "model": "m",
    "model_dir": "m",
}


def kill_before_the_commit(agent: StandInAgent) -> None:
    """Runs PREDICT in a submitter that is killed when it requests the commit."""

    def kill(process: subprocess.Popen[bytes]) -> None:
        os.kill(process.pid, signal.SIGKILL)

    agent.answer_commit = kill
    assert agent.run(PREDICT).exit_code == -signal.SIGKILL


def test_kill_before_commit_leaves_the_old_table_and_the_next_attempt_cleans_up(
    iris: Runner, agent: StandInAgent
) -> None:
    iris.predict("SELECT * FROM iris WHERE class = 0")
    kill_before_the_commit(agent)
    assert iris.sql("SELECT count(*) FROM outcome") == [("50",)]
    assert tables(iris) == {"outcome", "outcome__01jtest_1_1"}
    iris.attempt = 2
    iris.predict()
    assert iris.sql("SELECT count(*) FROM outcome") == [("150",)]
    assert tables(iris) == {"outcome"}


def test_clean_up_drops_leftovers_and_is_idempotent(iris: Runner, agent: StandInAgent) -> None:
    iris.predict("SELECT * FROM iris WHERE class = 0")
    kill_before_the_commit(agent)
    assert tables(iris) == {"outcome", "outcome__01jtest_1_1"}
    for _ in range(2):
        run = agent.run(PREDICT, attempt=2, scratch_suffix="01jtest_1_2", clean_up={}).succeeded()
        # A frame would record in the log that the statement started again.
        assert (run.kinds(), run.stdout) == ([], "")
        assert tables(iris) == {"outcome"}
    assert iris.sql("SELECT count(*) FROM outcome") == [("50",)]


def test_clean_up_reports_whether_a_granted_attempt_replaced_the_table(iris: Runner, agent: StandInAgent) -> None:
    def report() -> str:
        granted = {"granted_attempt": 1}
        return agent.run(PREDICT, attempt=2, scratch_suffix="01jtest_1_2", clean_up=granted).succeeded().stdout

    kill_before_the_commit(agent)
    assert report() == "table outcome was not replaced: the statement ended before that\n"
    iris.predict()
    assert report() == "table outcome was replaced: it holds the statement's result\n"
    iris.attempt = 2
    iris.predict()
    assert report() == "table outcome does not hold the statement's result, but that of 01jtest_1_2\n"
    assert tables(iris) == {"outcome"}


def test_long_table_names_are_truncated(iris: Runner) -> None:
    name = "outcome_" + "x" * 55
    iris.sql(f"DROP TABLE IF EXISTS {name}")
    for _ in range(2):
        iris.predict(table=name)
    assert iris.sql(f"SELECT count(*) FROM {name}") == [("150",)]
    assert tables(iris) == {name}
    iris.sql(f"DROP TABLE {name}")


def test_view_is_not_replaced(iris: Runner) -> None:
    iris.sql("DROP VIEW IF EXISTS outcome_view", "CREATE VIEW outcome_view AS SELECT 1 AS a")
    with pytest.raises(UserError, match="outcome_view"):
        iris.predict(table="outcome_view")
    assert iris.sql("SELECT a FROM outcome_view") == [("1",)]
    assert tables(iris) == set()
    iris.sql("DROP VIEW outcome_view")


def test_predict_writes_many_batches(sqlite_iris: Runner) -> None:
    sqlite_iris.predict("SELECT a.* FROM iris a, iris b", column="name")
    assert sqlite_iris.sql("SELECT count(*) FROM outcome") == [("22500",)]


def test_columns_that_differ_in_case_are_kept_in_postgresql(postgresql_dsn: str, tmp_path: Any) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    make(runner, "d", {"a": "integer", "id": "integer", "y": "integer"}, [(k, k + 500, k % 2) for k in range(50)])
    runner.train('SELECT a AS "A", y FROM d', "y")
    runner.run(
        kind="explain", select='SELECT a AS "A", id AS "a", y FROM d', result_table="d_out", model="m", model_dir="m"
    )
    assert runner.sql('SELECT min("a"), max("a"), count("A") FROM d_out') == [("500", "549", "50")]
    columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'd_out'::regclass"
    assert runner.sql(f"{columns} AND attnum > 0") == [("a,y,row,A",)]
    runner.predict('SELECT a AS "A", y, id AS "Y" FROM d', "d_out", "y")
    assert runner.sql(f"{columns} AND attnum > 0") == [("A,Y,y",)]
    assert runner.sql('SELECT min("Y"), max("Y") FROM d_out') == [("500", "549")]
