"""Connections of the data process to MariaDB: TLS, sockets, cancellation, limits, and what the server ends."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import StandInAgent
from in_process import execute
from servers import PASSWORD, cut_after, mariadb

CERTIFICATES = """
set -e
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -keyout ca.key -subj /CN=ca -days 30 -out ca.crt
openssl req $key -keyout server.key -subj /CN=server -out server.csr
echo subjectAltName=DNS:localhost > names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.crt
"""
TLS_VERSION = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_version'"


@pytest.fixture(scope="module")
def encrypting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Runs a server with a certificate for `localhost`. Yields a data source, and the issuer's certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["sh", "-c", CERTIFICATES], cwd=folder, check=True, capture_output=True)
    with mariadb(f"--ssl-cert={folder}/server.crt", f"--ssl-key={folder}/server.key") as dsn:
        yield dsn, folder / "ca.crt"


def test_connection_is_encrypted_if_the_server_supports_it(
    tmp_path: Path, encrypting: tuple[str, Path], mysql_dsn: str
) -> None:
    dsn, _ = encrypting
    for option, expected in (("", "TLSv1.3"), ("&tls=skip-verify", "TLSv1.3"), ("&tls=false", "")):
        assert StandInAgent(tmp_path, dsn + option).run(TLS_VERSION).succeeded().rows() == [(expected,)]
    assert StandInAgent(tmp_path, mysql_dsn).run(TLS_VERSION).succeeded().rows() == [("",)]
    failure = StandInAgent(tmp_path, f"{mysql_dsn}&tls=skip-verify").run(TLS_VERSION).failure()
    assert failure.user_error
    assert "the data source demands TLS, which the server does not support" in failure.message


def test_large_results_and_statements_are_encrypted(tmp_path: Path, encrypting: tuple[str, Path]) -> None:
    agent = StandInAgent(tmp_path, encrypting[0], keep_rows=False)
    agent.run("SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000").succeeded()
    assert agent.row_count == 100_000
    run = StandInAgent(tmp_path, encrypting[0]).run(f"SELECT LENGTH('{'x' * 20_000_000}'), REPEAT('y', 9000000)")
    assert run.succeeded().rows()[0][0] == "20000000"


def test_certificate_is_verified(tmp_path: Path, encrypting: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    dsn, issuer = encrypting
    named = dsn.replace("127.0.0.1", "localhost") + "&tls=true"
    failure = StandInAgent(tmp_path, named).run(TLS_VERSION).failure()
    assert failure.user_error
    assert "its authority is not trusted; name a file" in failure.message
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer))
    assert StandInAgent(tmp_path, named).run(TLS_VERSION).succeeded().rows() == [("TLSv1.3",)]
    failure = StandInAgent(tmp_path, f"{dsn}&tls=true").run(TLS_VERSION).failure()
    assert failure.user_error
    assert "it is not for this host; correct the host" in failure.message


def test_unix_socket_is_a_data_source(tmp_path: Path, mysql_dsn: str) -> None:
    ((path,),) = StandInAgent(tmp_path, mysql_dsn).run("SELECT @@socket").succeeded().rows()
    agent = StandInAgent(tmp_path, f"mysql://u:{PASSWORD}@unix({path})/test?sql_mode=%27ANSI_QUOTES%27")
    assert agent.run("SELECT @@sql_mode, DATABASE()").succeeded().rows() == [("ANSI_QUOTES", "test")]
    failure = StandInAgent(tmp_path, "mysql://u@unix(/no/such/socket)/d").run("SELECT 1").failure()
    assert failure.transient
    assert failure.message == "MySQL server at /no/such/socket: No such file or directory"


def running(dsn: str, text: str) -> list[int]:
    """Returns the ids of the connections that run a statement with this text."""
    sql = f"SELECT id FROM information_schema.processlist WHERE info LIKE '%{text}' AND id <> CONNECTION_ID()"
    return [int(row[0]) for row in execute(dsn, sql)]


def wait_until_running(dsn: str, text: str, count: int) -> list[int]:
    while len(found := running(dsn, text)) != count:
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_statement_in_the_database_too(
    tmp_path: Path, mysql_dsn: str, encrypting: tuple[str, Path], number: signal.Signals
) -> None:
    text = f"/* ended by {number.name} */"
    for dsn in (mysql_dsn, encrypting[0]):

        def end(process: subprocess.Popen[bytes], dsn: str = dsn) -> None:
            wait_until_running(dsn, text, 1)
            process.send_signal(number)

        agent = StandInAgent(tmp_path, dsn)
        agent.while_running = end
        run = agent.run(f"SELECT SLEEP(1000) {text}")
        assert run.exit_code == -number
        assert run.kinds() == ["started"] or run.kinds() == ["started", "head"]
        wait_until_running(dsn, text, 0)


def test_killed_query_is_a_user_error(tmp_path: Path, mysql_dsn: str) -> None:
    def kill(_: subprocess.Popen[bytes]) -> None:
        (found,) = wait_until_running(mysql_dsn, "/* killed */", 1)
        execute(mysql_dsn, f"KILL QUERY {found}")

    agent = StandInAgent(tmp_path, mysql_dsn)
    agent.while_running = kill
    failure = agent.run("SELECT COUNT(*) FROM seq_1_to_100000000 AS a, seq_1_to_1000 AS b /* killed */").failure()
    assert failure.user_error
    assert failure.message == "Query execution was interrupted"


@pytest.mark.parametrize("is_reset", [False, True])
def test_connection_lost_between_rows_is_retryable(tmp_path: Path, mysql_dsn: str, is_reset: bool) -> None:
    with cut_after(mysql_dsn, 300_000, is_reset) as cut:
        failure = StandInAgent(tmp_path, cut).run("SELECT seq AS x FROM seq_1_to_1000000").failure()
    assert failure.transient
    assert failure.message.startswith("MySQL server at 127.0.0.1:")


def test_row_above_the_limit_is_a_clear_error(tmp_path: Path, mysql_dsn: str) -> None:
    failure = StandInAgent(tmp_path, mysql_dsn).run("SELECT REPEAT('x', 40000000), REPEAT('x', 40000000)").failure()
    assert failure.user_error
    assert "a row is larger than the limit of 64 MiB" in failure.message


def test_statement_above_the_limit_is_a_clear_error(tmp_path: Path, mysql_dsn: str) -> None:
    failure = StandInAgent(tmp_path, mysql_dsn).run(f"SELECT LENGTH('{'x' * (65 << 20)}')").failure()
    assert failure.user_error
    assert failure.message == "Got a packet bigger than 'max_allowed_packet' bytes"


def test_maximum_of_columns(tmp_path: Path, mysql_dsn: str) -> None:
    agent = StandInAgent(tmp_path, mysql_dsn)
    columns = ", ".join(f"{place} AS c{place}" for place in range(4097))
    failure = agent.run(f"CREATE TABLE too_wide AS SELECT {columns}").failure()
    assert failure.user_error
    assert failure.message == "Too many columns"
    # A select without a table has another limit.
    numbers = ", ".join(str(place) for place in range(70_000))
    run = agent.run(f"SELECT {numbers}").succeeded()
    assert len(run.payloads("head")[0].column_names) == 70_000
    assert run.rows()[0][-1] == "69999"


def test_local_file_is_not_loaded(tmp_path: Path, mysql_dsn: str) -> None:
    agent = StandInAgent(tmp_path, mysql_dsn)
    agent.run("DROP TABLE IF EXISTS loaded", "CREATE TABLE loaded (a text)").succeeded()
    failure = agent.run("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE loaded").failure()
    assert failure.user_error
    assert "local infile" in failure.message
    assert agent.run("SELECT COUNT(*) FROM loaded").succeeded().rows() == [("0",)]


def test_several_results_and_counts_of_one_call(tmp_path: Path, mysql_dsn: str) -> None:
    agent = StandInAgent(tmp_path, mysql_dsn)
    agent.run(
        "DROP TABLE IF EXISTS counted",
        "CREATE TABLE counted (a int)",
        "DROP PROCEDURE IF EXISTS several",
        "CREATE PROCEDURE several() BEGIN INSERT INTO counted VALUES (1), (2); SELECT a FROM counted; "
        "UPDATE counted SET a = 3; SELECT 'x' FROM DUAL WHERE FALSE; SELECT SUM(a) AS s FROM counted; END",
    ).succeeded()
    run = agent.run("CALL several()", "SELECT 1").succeeded()
    assert [list(head.column_names) for head in run.payloads("head")] == [["a"], ["x"], ["s"], ["1"]]
    assert run.rows(0) == [("1",), ("2",), ("6",)]


def test_text_that_is_not_utf8_and_geometry_are_shown(tmp_path: Path, mysql_dsn: str) -> None:
    agent = StandInAgent(tmp_path, mysql_dsn)
    (rows,) = agent.run("SELECT X'FF41' AS a, ST_GeomFromText('POINT(1 2)') AS g").succeeded().payloads("rows")
    assert rows.columns[0].blobs.values[0] == b"\xffA"
    assert len(rows.columns[1].blobs.values[0]) == 25


def test_select_that_has_begun_is_not_executed_again(tmp_path: Path, mysql_dsn: str) -> None:
    # The code of a table that has changed since the statement was prepared.
    fails = (
        "CREATE OR REPLACE FUNCTION fails(i INT) RETURNS DOUBLE BEGIN IF i = 250 THEN "
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1615, MESSAGE_TEXT = 'at 250'; END IF; RETURN i; END"
    )
    agent = StandInAgent(tmp_path, mysql_dsn)
    run = agent.run(fails, "SELECT fails(seq) FROM seq_1_to_300")
    assert run.failure().message == "at 250"
    assert run.kinds()[2:] == ["started", "head", "rows", "failure"]
