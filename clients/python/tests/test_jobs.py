"""Jobs of a real server: results, errors, cancels, restarts."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from real_server import ENDLESS, RealServer, iris

import sqlflow
from sqlflow import aio, tokens


def test_result_is_the_last_table(client: sqlflow.Client) -> None:
    result = client.run("SELECT 1 AS a; SELECT class, count(*) AS n FROM iris GROUP BY class").result()
    assert [table.column_names for table in result.tables] == [["a"], ["class", "n"]]
    frame = result.to_pandas()
    assert frame["n"].tolist() == [50, 50, 50] and str(frame["n"].dtype) == "int64"
    assert result.to_arrow().to_pydict() == {"class": [0, 1, 2], "n": [50, 50, 50]}
    assert list(result) == [(0, 50), (1, 50), (2, 50)]
    assert "3 rows, 2 columns" in repr(result)


def test_socket_of_a_server_serves_calls(tmp_path: Path) -> None:
    socket = tmp_path / "server.sock"

    async def count() -> list[tuple[Any, ...]]:
        async with aio.connect(f"unix://{socket}") as client:
            return list(await (await client.run("SELECT 2")).result())

    with RealServer(tmp_path, f"sqlite:///{iris(tmp_path / 'iris.db')}", "--socket", str(socket)):
        with sqlflow.connect(f"unix://{socket}") as client:
            assert list(client.run("SELECT 1").result()) == [(1,)]
        assert asyncio.run(count()) == [(2,)]


def test_values_of_sqlite_have_their_types(client: sqlflow.Client, server: RealServer) -> None:
    program = """
        CREATE TABLE kinds (a INTEGER, b REAL, c TEXT, d BLOB, e);
        INSERT INTO kinds VALUES (9007199254740993, 0.1, 'é', X'00ff', 1), (NULL, NULL, NULL, NULL, 'x');
        SELECT * FROM kinds; DROP TABLE kinds"""
    result = client.run(program).result()
    assert list(result) == [(9007199254740993, 0.1, "é", b"\x00\xff", 1), (None, None, None, None, "x")]
    assert result.rows_affected >= 2
    assert str(result.to_pandas()["a"].dtype) == "Int64"


def test_program_without_rows_has_no_table(client: sqlflow.Client) -> None:
    result = client.run("CREATE TABLE none_here (a INTEGER); DROP TABLE none_here").result()
    with pytest.raises(sqlflow.NoResultSet, match="end it with a SELECT"):
        result.to_pandas()
    empty = client.run("SELECT * FROM iris WHERE 1 = 0").result().to_pandas()
    assert len(empty) == 0 and list(empty.columns)[-1] == "class"


def test_events_are_typed_and_end_with_the_job(client: sqlflow.Client) -> None:
    job = client.run("SELECT * FROM iris LIMIT 3")
    events = list(job)
    kinds = [type(event) for event in events if not isinstance(event, sqlflow.Pending | sqlflow.Notice)]
    assert kinds == [sqlflow.StatementStarted, sqlflow.Columns, sqlflow.Rows, sqlflow.StatementEnded, sqlflow.JobEnded]
    positions = [event.position for event in events]
    assert positions == sorted(positions)
    rows = next(event for event in events if isinstance(event, sqlflow.Rows))
    assert len(rows) == 3 and len(list(rows)) == 3 and rows.time is not None
    behind = list(job.events(after=rows.position))
    assert [type(event) for event in behind] == [sqlflow.StatementEnded, sqlflow.JobEnded]
    assert list(client.job(tokens.at(job.token, rows.position))) == behind


def test_training_reports_rounds_and_a_model(client: sqlflow.Client) -> None:
    program = """
        SELECT * FROM iris WHERE rowid % 5 > 0 TO TRAIN xgboost.gbtree
        WITH train.num_boost_round = 4, validation.select = "SELECT * FROM iris WHERE rowid % 5 = 0"
        LABEL class INTO rounds;
        SELECT * FROM iris WHERE rowid % 5 = 0 TO EVALUATE rounds LABEL class;
        SELECT * FROM iris TO EXPLAIN rounds;
        DROP MODEL rounds"""
    events = list(client.run(program))
    rounds = [event for event in events if isinstance(event, sqlflow.Metrics) and event.step is not None]
    assert len(rounds) >= 2 and {"train-mlogloss", "validate-mlogloss"} <= set(rounds[-1].values)
    models = [event.name for event in events if isinstance(event, sqlflow.ModelPublished | sqlflow.ModelDropped)]
    assert models == ["rounds", "rounds"]
    assert any(isinstance(event, sqlflow.Progress) for event in events)
    plots = [event for event in events if isinstance(event, sqlflow.Display)]
    assert plots[0].media_type == "image/png" and plots[0].data.startswith(b"\x89PNG")
    assert "image/png" in plots[0]._repr_mimebundle_()
    scores = [dict(event) for event in events if isinstance(event, sqlflow.Rows)]
    assert 0.8 < scores[0]["accuracy"] <= 1  # type: ignore[operator]
    assert b"".join(event.data for event in events if isinstance(event, sqlflow.Log))


def test_failed_job_raises_with_cause_and_statement(client: sqlflow.Client) -> None:
    job = client.run("SELECT 1; SELECT * FROM no_such_table")
    with pytest.raises(sqlflow.JobFailed, match="no_such_table") as failed:
        job.result()
    error = failed.value
    assert (error.cause, error.statement, error.sql) == ("STATEMENT_FAILED", 1, "SELECT * FROM no_such_table")
    assert job.info().state is sqlflow.State.FAILED
    assert isinstance(list(job)[-1], sqlflow.JobEnded), "iterating raises nothing"


def test_wrong_program_is_rejected_with_its_place(client: sqlflow.Client) -> None:
    with pytest.raises(sqlflow.InvalidProgram) as rejected:
        client.run("SELECT 1;\nSELECT * FROM iris TO TRAIN no.such LABEL class INTO m")
    assert "2 | SELECT * FROM iris TO TRAIN" in str(rejected.value) and "^" in str(rejected.value)


def test_cancelled_job_raises(client: sqlflow.Client) -> None:
    job = client.run(ENDLESS)
    seen = []
    for event in job:
        seen.append(event)
        if isinstance(event, sqlflow.StatementStarted):
            assert job.cancel().id == job.id
    assert isinstance(seen[-1], sqlflow.JobEnded) and seen[-1].state is sqlflow.State.CANCELLED
    with pytest.raises(sqlflow.JobCancelled):
        job.result()
    assert job.cancel().state is sqlflow.State.CANCELLED, "it has ended already"


def test_ctrl_c_stops_a_program_that_waits(server: RealServer) -> None:
    script = f"""
        import sqlflow
        client = sqlflow.connect({server.address!r})
        job = client.run({ENDLESS!r})
        try:
            for event in job:
                if isinstance(event, sqlflow.StatementStarted):
                    print("waits", flush=True)
        except KeyboardInterrupt:
            job.cancel()
            print(list(job)[-1].state.value)
        """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(sqlflow.__path__[0]).parent,
    )
    assert program.stdout is not None and program.stdout.readline() == "waits\n"
    program.send_signal(signal.SIGINT)
    assert program.stdout.read() == "CANCELLED\n" and program.wait() == 0
    program.stdout.close()


def test_limit_of_rows_is_an_error_and_not_a_cut(client: sqlflow.Client) -> None:
    job = client.run("SELECT * FROM iris")
    with pytest.raises(sqlflow.ResultTooLarge, match="more than 149 rows"):
        job.result(max_rows=149)
    assert len(job.result(max_rows=150).table) == 150


def test_job_is_found_again_by_token_id_and_last(client: sqlflow.Client) -> None:
    job = client.run("SELECT 7 AS seven")
    for name in (job.token, job.id, job.id[:20], "last"):
        found = client.job(name)
        assert found.id == job.id and list(found.result()) == [(7,)]
    assert client.jobs(limit=1)[0].id == job.id
    assert job.info().sql == "SELECT 7 AS seven"
    forgotten = client.run("SELECT 8", remember=False)
    assert client.job("last").id == job.id
    assert list(client.job(forgotten.id).result()) == [(8,)], "the owner needs no token"
    with pytest.raises(sqlflow.JobNotFound):
        client.job("sqlflow" + "0" * 32)


def test_data_source_is_a_file_of_this_machine(client: sqlflow.Client, tmp_path: Path) -> None:
    file = iris(tmp_path / "other.db")
    assert list(client.run("SELECT count(*) FROM iris", datasource=file).result()) == [(150,)]


def test_server_that_is_away_is_reported(tmp_path: Path) -> None:
    with sqlflow.connect("127.0.0.1:1", retry_timeout=0.1) as away, pytest.raises(sqlflow.ServerUnavailable) as error:
        away.run("SELECT 1")
    assert "cannot reach the server at http://127.0.0.1:1" in str(error.value)


@pytest.fixture
def own_server(tmp_path: Path) -> RealServer:
    return RealServer(tmp_path, f"sqlite:///{iris(tmp_path / 'iris.db')}")


def test_killed_server_in_the_middle_of_a_job_loses_and_repeats_nothing(own_server: RealServer) -> None:
    with own_server, sqlflow.connect(own_server.address) as client:
        job = client.run(
            "SELECT * FROM iris LIMIT 2; SELECT * FROM iris TO TRAIN xgboost.gbtree LABEL class INTO survivor; SELECT 3"
        )
        events = []
        for event in job:
            events.append(event)
            match event:
                case sqlflow.StatementStarted(statement=1):
                    own_server.end()
                case sqlflow.Reconnecting():
                    own_server.start()
                case _:
                    pass
        kinds = [type(event) for event in events]
        assert sqlflow.Reconnected in kinds
        rows = [row for event in events if isinstance(event, sqlflow.Rows) for row in event]
        assert len(rows) == 3 and rows[-1] == (3,)
        assert kinds.count(sqlflow.ModelPublished) == 1 and kinds.count(sqlflow.StatementEnded) == 3
        assert isinstance(events[-1], sqlflow.JobEnded) and events[-1].state is sqlflow.State.SUCCEEDED
        assert len(client.jobs()) == 1, "Run was not repeated as another job"


def test_asyncio_has_the_same(server: RealServer) -> None:
    async def use() -> None:
        async with aio.connect(server.address) as client:
            first, second = await asyncio.gather(client.run("SELECT 1 AS a"), client.run("SELECT 2 AS a"))
            results = await asyncio.gather(first.result(), second.result())
            assert [list(result) for result in results] == [[(1,)], [(2,)]]
            endless = await client.run(ENDLESS)
            async for event in endless:
                if isinstance(event, sqlflow.StatementStarted):
                    await endless.cancel()
            assert isinstance(event, sqlflow.JobEnded) and event.state is sqlflow.State.CANCELLED
            with pytest.raises(sqlflow.JobCancelled):
                await endless.result()
            with pytest.raises(sqlflow.InvalidProgram, match="line 1"):
                await client.run("SELECT * FROM iris TO TRAIN")
            found = await client.job(first.token)
            assert (await found.info()).state is sqlflow.State.SUCCEEDED
            assert {job.id for job in await client.jobs(limit=3)} == {first.id, second.id, endless.id}

    asyncio.run(use())


def test_asyncio_task_can_be_cancelled_while_it_waits(server: RealServer) -> None:
    async def use() -> None:
        async with aio.connect(server.address) as client:
            job = await client.run(ENDLESS)
            waits = asyncio.create_task(job.result())
            async for event in job:
                if isinstance(event, sqlflow.StatementStarted):
                    break
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            await job.cancel()
            assert [type(event) async for event in job][-1] is sqlflow.JobEnded

    asyncio.run(use())


def test_access_token_is_sent(tmp_path: Path) -> None:
    programs = RealServer(tmp_path, f"sqlite:///{iris(tmp_path / 'iris.db')}")._command[0]
    tokens_file = tmp_path / "tokens.toml"
    made = subprocess.run(
        [programs, "token", "ana", "--token-file", tokens_file], check=True, capture_output=True, text=True
    )
    secret = made.stdout.strip()
    own = RealServer(tmp_path, f"sqlite:///{tmp_path / 'iris.db'}", "--token-file", str(tokens_file))
    with own:
        with sqlflow.connect(own.address, access_token=secret) as ana:
            assert list(ana.run("SELECT 1").result()) == [(1,)]
        with sqlflow.connect(own.address, access_token="wrong") as nobody, pytest.raises(sqlflow.AccessDenied):
            nobody.run("SELECT 1")
