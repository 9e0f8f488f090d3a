"""Texts that are not UTF-8, duplicate names, lost connections, and missing glyphs."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from servers import cut_after
from tables import database, feature, make, meta, rejects, trained

from sqlflow_submitter.errors import UserError


def test_texts_that_are_not_utf8_are_an_error(sqlite_runner: Runner) -> None:
    path = sqlite_runner.dsn.removeprefix("sqlite://").removesuffix("?mode=rwc")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE d (x TEXT, y INT)")
        connection.executemany("INSERT INTO d VALUES (?, ?)", [(f"t{k % 3}", k % 2) for k in range(150)])
        connection.execute("UPDATE d SET x = CAST(x'ff41' AS TEXT) WHERE rowid = 120")
    rejects(sqlite_runner, r"^column x, row 120: b'\\xffA' is binary data, or text that is not UTF-8")
    trained(sqlite_runner, select="x, y", table="d WHERE rowid <> 120")
    with pytest.raises(UserError, match=r"^column x, row 120: .* not UTF-8"):
        sqlite_runner.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")
    trained(sqlite_runner, select="y AS z, y", table="d")
    written = {"kind": "predict", "result_table": "d_out", "result_column": "p", "model_dir": "m"}
    with pytest.raises(UserError, match=r"^column x, row 120: b'\\xffA' cannot be written: it is not UTF-8"):
        sqlite_runner.run(select="SELECT x, y AS z FROM d", **written)


def test_session_encoding_does_not_change_texts(runner: Runner, agent: StandInAgent) -> None:
    if database(runner) == "sqlite":
        return
    make(runner, "d", {"x": "text", "y": "integer"}, [(("é", "ü")[k % 2], k % 2) for k in range(50)])
    for sql in (
        "SET NAMES latin1" if database(runner) == "mysql" else "SET client_encoding TO latin1",
        "SET NAMES 'latin1'",
    ):
        run = agent.run(sql, "SELECT min(x), 'ö' FROM d")
        assert run.succeeded().rows() == [("é", "ö")]
        assert "the encoding of the session stays UTF-8" in run.stderr
        statement = {
            "kind": "train",
            "select": "SELECT * FROM d",
            "estimator": "xgboost.gbtree",
            "label": "y",
            "output": "m",
        }
        agent.run(statement, replay=(sql,)).succeeded()
        assert feature(meta(runner), "x")["vocabulary"] == ["é", "ü"]


def test_duplicate_column_is_rejected(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "integer"}, [(1, 2)])
    for select in ("x, x, y", "x, y, y"):
        rejects(runner, r"^column [xy] occurs 2 times in the select; rename each with AS$", select=select)


@pytest.mark.parametrize("is_reset", [False, True])
def test_connection_lost_between_rows_is_reported_in_one_line(
    is_reset: bool, mysql_dsn: str, postgresql_dsn: str, tmp_path: Any
) -> None:
    selects = {
        mysql_dsn: "SELECT seq AS x, seq % 2 AS y FROM seq_1_to_1000000",
        postgresql_dsn: "SELECT i AS x, i % 2 AS y FROM generate_series(1, 1000000) AS i",
    }
    for dsn, select in selects.items():
        with cut_after(dsn, 300_000, is_reset) as cut:
            train = {"kind": "train", "select": select, "estimator": "xgboost.gbtree", "label": "y", "output": "m"}
            failure = StandInAgent(tmp_path, cut).run(train).failure()
        assert failure.transient
        assert failure.message.startswith(("MySQL server at 127.0.0.1:", "PostgreSQL server at 127.0.0.1:"))
        for wrong in (".py", "Traceback", "probably"):
            assert wrong not in failure.message


def test_missing_glyphs_cause_one_warning(sqlite_runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    make(
        sqlite_runner,
        "d",
        {'"列"': "integer", '"b$c$"': "integer", "y": "integer"},
        [(k, k % 3, k % 2) for k in range(50)],
    )
    trained(sqlite_runner)
    capfd.readouterr()
    run = sqlite_runner.run(kind="explain", select="SELECT * FROM d", model="m", model_dir="m")
    assert run.payloads("display")[0].data.startswith(b"\x89PNG")
    said = capfd.readouterr()
    assert (said.out + said.err).count("no font") <= 1
    assert "UserWarning" not in said.err
