"""Connections to PostgreSQL: TLS, authentication, sockets, cancelled queries, and its limits."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent import Run, StandInAgent
from servers import free_port

USES_TLS = "SELECT ssl::text, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(autouse=True)
def no_files_of_libpq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline


class SignalledAgent(StandInAgent):
    """Tells its process, which a test may kill."""

    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path, dsn: str) -> None:
        super().__init__(folder, dsn)
        self.has_started = threading.Event()
        self.while_running = self._keep

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.has_started.set()


class Server:
    """Changes the configuration of a running server."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self._agent = StandInAgent(folder, dsn)
        self.data = Path(self.value("SHOW data_directory"))
        self._hba = (self.data / "pg_hba.conf").read_text()

    def value(self, sql: str) -> str:
        ((value,),) = self._agent.run(sql).succeeded().rows()
        return value

    def sql(self, *statements: str) -> None:
        self._agent.run(*statements).succeeded()

    def set(self, **settings: str) -> None:
        self.sql(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()))
        self.reload()

    def reset(self) -> None:
        (self.data / "pg_hba.conf").write_text(self._hba)
        self.sql("ALTER SYSTEM RESET ALL")
        self.reload()

    def reload(self) -> None:
        """Waits until new sessions have the new configuration."""
        loaded_at = "SELECT pg_conf_load_time()::text"
        before = self.value(loaded_at)
        self.sql("SELECT pg_reload_conf()")
        eventually(lambda: self.value(loaded_at) != before)

    def allow(self, *rules: str) -> None:
        """Puts rules before those of pg_hba.conf."""
        (self.data / "pg_hba.conf").write_text("\n".join((*rules, self._hba)))
        self.reload()

    def copy(self, file: Path, name: str) -> str:
        """Copies a file into the data folder, as its owner's."""
        target = self.data / name
        target.write_bytes(file.read_bytes())
        target.chmod(0o600)
        owner = self.data.stat()
        if os.getuid() == 0:
            os.chown(target, owner.st_uid, owner.st_gid)
        return name


def certificate(folder: Path, name: str, authority: str | None, *options: str) -> None:
    """Makes a certificate and its key. Without an authority, it is one."""
    signer = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"] if authority else []
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", *signer, *options),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "ca", None)
    certificate(folder, "other", None)
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE")
    certificate(folder, "server", "ca", *leaf, "-addext", "subjectAltName=DNS:localhost")
    certificate(folder, "certified", "ca", *leaf)
    certificate(folder, "alone", None, "-addext", "subjectAltName=DNS:localhost")
    return folder


@pytest.fixture
def server(postgresql_dsn: str, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(postgresql_dsn, folder)
    yield server
    server.reset()


@pytest.fixture
def tls_server(server: Server, certificates: Path) -> Server:
    names = {f"ssl_{kind}_file": server.copy(certificates / file, file) for kind, file in CERTIFICATE_FILES.items()}
    server.set(**names, ssl="on")
    return server


CERTIFICATE_FILES = {"cert": "server.crt", "key": "server.key", "ca": "ca.crt"}


def run(folder: Path, dsn: str, *statements: str) -> Run:
    return StandInAgent(folder, dsn).run(*statements)


def test_sslmode_decides_about_tls_and_what_is_verified(tls_server: Server, certificates: Path, tmp_path: Path) -> None:
    dsn = tls_server.dsn
    local = dsn.replace("127.0.0.1", "localhost")
    by_address = f"{local}?hostaddr=127.0.0.1"
    ca, other = (f"sslrootcert={certificates}/{name}.crt" for name in ("ca", "other"))
    for source, uses_tls in (
        (f"{dsn}?sslmode=disable", False),
        (f"{dsn}?sslmode=allow", False),
        (dsn, True),
        (f"{dsn}?sslmode=prefer&{other}", True),
        (f"{dsn}?sslmode=require", True),
        (f"{dsn}?sslmode=require&{ca}", True),
        (f"{dsn}?sslmode=verify-ca&{ca}", True),
        (f"{local}?sslmode=verify-full&{ca}", True),
        (f"{by_address}&sslmode=verify-full&{ca}", True),
        (f"{dsn}?sslmode=require&channel_binding=require", True),
        (f"{dsn}?sslmode=require&channel_binding=disable&ssl_min_protocol_version=TLSv1.3&sslsni=0", True),
    ):
        rows = run(tmp_path, source, USES_TLS).succeeded().rows()
        assert rows == [("true", "TLSv1.3") if uses_tls else ("false", "NULL")], source
    for source, message in (
        (f"{dsn}?sslmode=verify-full&{ca}", "it is not for host 127.0.0.1; correct the host, or have its name added"),
        (f"{local}?sslmode=verify-full&{other}", "its authority is not trusted; name a file with the authority's"),
        (f"{dsn}?sslmode=require&{other}", "its authority is not trusted"),
        (f"{local}?sslrootcert=system", "its authority is not trusted"),
        (f"{dsn}?sslmode=verify-ca", "the data source names no authority; add sslrootcert with a file"),
        (f"{dsn}?sslmode=verify-ca&sslrootcert=/no/such.crt", "cannot use sslrootcert /no/such.crt: No such file"),
        (f"{dsn}?sslmode=disable&channel_binding=require", "channel_binding=require demands"),
    ):
        failure = run(tmp_path, source, USES_TLS).failure()
        assert failure.user_error, source
        assert message in failure.message, source


def test_many_rows_arrive_over_tls(tls_server: Server, tmp_path: Path) -> None:
    agent = StandInAgent(tmp_path, f"{tls_server.dsn}?sslmode=require", keep_rows=False)
    result = agent.run("SELECT i, repeat('x', i % 3000) FROM generate_series(1, 20000) AS i").succeeded()
    assert agent.row_count == 20000
    assert result.peak_rss < 40 << 20


def test_files_of_libpq_in_the_home_folder_are_used(tls_server: Server, certificates: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    root = folder / "root.crt"
    root.write_bytes((certificates / "other.crt").read_bytes())
    assert "not trusted" in run(tmp_path, f"{tls_server.dsn}?sslmode=require", USES_TLS).failure().message
    root.write_bytes((certificates / "ca.crt").read_bytes())
    run(tmp_path, f"{tls_server.dsn}?sslmode=verify-ca", USES_TLS).succeeded()
    (folder / "root.crl").touch()
    failure = run(tmp_path, f"{tls_server.dsn}?sslmode=verify-ca", USES_TLS).failure()
    assert failure.message.startswith(f"cannot use the file {folder}/root.crl: revocation lists are not supported")


def test_certificate_that_is_its_own_authority_is_accepted(server: Server, certificates: Path, tmp_path: Path) -> None:
    for kind in ("crt", "key"):
        server.copy(certificates / f"alone.{kind}", f"alone.{kind}")
    server.set(ssl_cert_file="alone.crt", ssl_key_file="alone.key", ssl="on")
    options = f"?sslmode=verify-full&sslrootcert={certificates}/alone.crt"
    local = server.dsn.replace("127.0.0.1", "localhost")
    run(tmp_path, local + options, "SELECT 1").succeeded()
    assert "not for host" in run(tmp_path, server.dsn + options, "SELECT 1").failure().message


def test_client_certificate_replaces_the_password(tls_server: Server, certificates: Path, tmp_path: Path) -> None:
    tls_server.sql("DROP ROLE IF EXISTS certified", "CREATE ROLE certified LOGIN")
    tls_server.allow("hostssl all certified all cert")
    place = tls_server.dsn.partition("@")[2]
    key = f"sslcert={certificates}/certified.crt&sslkey={certificates}/certified.key"
    source = f"postgresql://certified@{place}?sslmode=require"
    rows = run(tmp_path, f"{source}&{key}", "SELECT current_user").succeeded().rows()
    assert rows == [("certified",)]
    failure = run(tmp_path, source, "SELECT current_user").failure()
    assert failure.user_error
    assert "certificate" in failure.message
    untrusted = key.replace("/certified.", "/other.")
    failure = run(tmp_path, f"{source}&{untrusted}", "SELECT current_user").failure()
    assert failure.user_error
    assert "it ended the TLS handshake with the alert UnknownCA; check sslcert and sslkey" in failure.message


def test_server_without_tls_is_reported_if_tls_is_demanded(postgresql_dsn: str, tmp_path: Path) -> None:
    assert run(tmp_path, postgresql_dsn, USES_TLS).succeeded().rows() == [("false", "NULL")]
    failure = run(tmp_path, f"{postgresql_dsn}?sslmode=require", USES_TLS).failure()
    assert failure.user_error
    assert "it does not support TLS, which sslmode demands" in failure.message


def test_connection_is_tried_again_as_the_server_allows(tls_server: Server, tmp_path: Path) -> None:
    for rule, mode, uses_tls in (
        ("hostnossl", "prefer", "false"),
        ("hostssl", "allow", "true"),
        ("hostssl", "disable", None),
        ("hostnossl", "require", None),
    ):
        opposite = "hostssl" if rule == "hostnossl" else "hostnossl"
        tls_server.allow(f"{opposite} postgres u all reject")
        attempt = run(tmp_path, f"{tls_server.dsn}?sslmode={mode}", USES_TLS)
        if uses_tls is None:
            assert "pg_hba.conf rejects connection" in attempt.failure().message
        else:
            assert attempt.succeeded().rows()[0][0] == uses_tls
        tls_server.allow()


@pytest.mark.parametrize(("method", "encryption"), [("md5", "md5"), ("password", "scram-sha-256")])
def test_other_methods_of_authentication(server: Server, tmp_path: Path, method: str, encryption: str) -> None:
    server.sql(
        "DROP ROLE IF EXISTS other",
        f"SET password_encryption = '{encryption}'",
        "CREATE ROLE other LOGIN PASSWORD 'Geheim-ß'",
    )
    server.allow(f"host all other all {method}")
    place = server.dsn.partition("@")[2]
    source = f"postgresql://other:Geheim-%C3%9F@{place}"
    assert run(tmp_path, source, "SELECT current_user").succeeded().rows() == [("other",)]
    failure = run(tmp_path, source.replace("Geheim", "falsch"), "SELECT 1").failure()
    assert failure.user_error
    assert 'password authentication failed for user "other"' in failure.message
    failure = run(tmp_path, f"postgresql://other@{place}", "SELECT 1").failure()
    assert failure.user_error
    assert "it asks for the password of user other; add the password to the data source" in failure.message


def test_socket_hosts_and_options_of_libpq(server: Server, tmp_path: Path) -> None:
    login, _, place = server.dsn.removeprefix("postgresql://").partition("@")
    folder = server.value("SHOW unix_socket_directories")
    port = place.partition("/")[0].partition(":")[2]
    socket_address = "SELECT (inet_server_addr() IS NULL)::text"
    for source in (
        f"postgresql://{login}@{folder.replace('/', '%2F')}:{port}/postgres?sslmode=require",
        f"postgresql://{login}@/postgres?host={folder}&port={port}",
    ):
        assert run(tmp_path, source, socket_address).succeeded().rows() == [("true",)]
    several = f"postgresql://{login}@127.0.0.1:{free_port()},{place}"
    run(tmp_path, several, "SELECT 1").succeeded()
    options = "?application_name=%C3%BC%20x&options=-c%20work_mem%3D7MB&keepalives_idle=9&keepalives_count=3"
    shown = "SELECT current_setting('work_mem'), current_setting('application_name')"
    rows = run(tmp_path, f"{server.dsn}{options}&tcp_user_timeout=9000", shown).succeeded().rows()
    assert rows[0][0] == "7MB"
    assert run(tmp_path, server.dsn, "SHOW application_name").succeeded().rows() == [("sqlflow",)]


def test_user_of_the_process_is_the_default(server: Server, tmp_path: Path) -> None:
    place = server.dsn.partition("@")[2].partition("/")[0]
    failure = run(tmp_path, f"postgresql://{place}/postgres", "SELECT 1").failure()
    name = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    assert f"user {name}" in failure.message.replace('"', "")


def sleeper(folder: Path, dsn: str) -> tuple[SignalledAgent, threading.Thread, list[Run]]:
    """Begins a long query in another thread."""
    folder.mkdir()
    agent = SignalledAgent(folder, f"{dsn}?application_name=sleeper")
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(agent.run("SELECT pg_sleep(600)")))
    thread.start()
    return agent, thread, runs


SLEEPING = "FROM pg_stat_activity WHERE application_name = 'sleeper' AND state = 'active' AND query LIKE '%600%'"


def await_sleepers(server: Server, count: int) -> None:
    eventually(lambda: server.value(f"SELECT count(*) {SLEEPING}") == str(count))


@pytest.mark.parametrize(
    ("function", "message", "is_transient"),
    [
        ("pg_cancel_backend", "canceling statement due to user request", False),
        ("pg_terminate_backend", "terminating connection due to administrator command", True),
    ],
)
def test_killed_query_is_reported(
    server: Server, tmp_path: Path, function: str, message: str, is_transient: bool
) -> None:
    _, thread, runs = sleeper(tmp_path / "sleeper", server.dsn)
    await_sleepers(server, 1)
    server.sql(f"SELECT {function}(pid) {SLEEPING}")
    thread.join()
    failure = runs[0].failure()
    assert failure.message.endswith(message)
    assert (failure.transient, failure.user_error) == (is_transient, not is_transient)


@pytest.mark.parametrize("tls", [False, True])
def test_term_ends_the_query_in_the_database(request: Any, server: Server, tmp_path: Path, tls: bool) -> None:
    if tls:
        request.getfixturevalue("tls_server")
    agent, thread, runs = sleeper(tmp_path / "sleeper", server.dsn)
    await_sleepers(server, 1)
    agent.has_started.wait()
    agent.process.send_signal(signal.SIGTERM)
    thread.join()
    assert runs[0].exit_code == -signal.SIGTERM
    await_sleepers(server, 0)


def test_maximum_of_columns_and_bytes(postgresql_dsn: str, tmp_path: Path) -> None:
    columns = ", ".join(f"{place} AS c" for place in range(1664))
    result = run(tmp_path, postgresql_dsn, f"SELECT {columns}").succeeded()
    assert result.rows() == [tuple(map(str, range(1664)))]
    assert list(result.payloads("head")[0].column_names) == ["c"] * 1664
    failure = run(tmp_path, postgresql_dsn, f"SELECT {columns}, 1").failure()
    assert failure.message.endswith("target lists can have at most 1664 entries")
    failure = run(tmp_path, postgresql_dsn, "SELECT repeat('x', 70000000)").failure()
    assert failure.user_error
    assert failure.message.startswith("cannot read a row of 70000006 bytes: it is too long; select fewer or smaller")


def test_formats_that_a_statement_sets_are_shown_as_printed(postgresql_dsn: str, tmp_path: Path) -> None:
    statements = "SET datestyle TO German", "SET bytea_output TO escape", r"SELECT DATE '2024-02-29', '\x0041'::bytea"
    assert run(tmp_path, postgresql_dsn, *statements).succeeded().rows() == [("29.02.2024", "\\000A")]
