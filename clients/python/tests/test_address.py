"""Where the server is, and what it is sent."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import sqlflow
from sqlflow.address import Address, Options, own_socket, resolve, server_url


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of who runs the tests."""
    monkeypatch.setattr("sqlflow.address.is_port_open", lambda port: False)


def own(home: Path) -> str:
    return f"unix://{home}/.local/share/sqlflow/own/server.sock"


def variables(folder: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(folder), **more}


def log_in(folder: Path, server: str, **more: object) -> None:
    file = folder / ".config" / "sqlflow" / "login.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"server": server, "access_token": "secret", **more}))


@pytest.mark.parametrize(
    ("given", "url", "target"),
    [
        ("db:1", "http://db:1", "db:1"),
        (":7", "http://localhost:7", "localhost:7"),
        ("[::1]:7", "http://[::1]:7", "[::1]:7"),
        ("https://a.example.com:443/", "https://a.example.com:443", "a.example.com:443"),
        ("unix:///run/s.sock", "unix:///run/s.sock", "unix:/run/s.sock"),
        ("unix:/run/s.sock", "unix:///run/s.sock", "unix:/run/s.sock"),
    ],
)
def test_address_has_the_forms_of_sqlflowctl(given: str, url: str, target: str) -> None:
    assert server_url(given) == url
    assert Address(url).target() == target


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("localhost", "write localhost:50051"),
        ("50051", "write :50051"),
        ("", "write localhost:50051"),
        ("::1", "write [::1]:50051"),
        ("ftp://a:1", "ftp:// is not supported"),
        ("a:b", "'b' is not a port"),
        ("a:65536", "'65536' is not a port"),
        ("user@a:1", "HOST:PORT"),
        ("unix:s", "write unix:///PATH"),
    ],
)
def test_wrong_address_is_an_error_with_a_fix(given: str, fix: str) -> None:
    with pytest.raises(sqlflow.UsageError) as error:
        server_url(given)
    assert fix in str(error.value)


def test_argument_precedes_variable_and_login(tmp_path: Path) -> None:
    log_in(tmp_path, "https://login:1")
    set_here = variables(tmp_path, SQLFLOW_SERVER="variable:1")
    assert resolve(Options("given:1"), set_here).server == "http://given:1"
    assert resolve(Options(), set_here).server == "http://variable:1"
    assert resolve(Options(), variables(tmp_path)).server == "https://login:1"
    assert resolve(Options(), variables(tmp_path / "other")).server == own(tmp_path / "other")


def test_socket_of_a_server_of_this_user_is_the_default(tmp_path: Path) -> None:
    set_here = variables(tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    socket = tmp_path / "sqlflow" / "server.sock"
    assert resolve(Options(), set_here).server == own(tmp_path)
    socket.parent.mkdir()
    socket.touch()
    found = resolve(Options(), set_here)
    assert (found.server, found.own_folder) == (f"unix://{socket}", None)


def test_own_server_is_the_default_unless_another_one_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(Options(), variables(tmp_path))
    assert found.own_folder is not None and found.server == f"unix://{own_socket(found.own_folder)}" == own(tmp_path)
    monkeypatch.setattr("sqlflow.address.is_port_open", lambda port: True)
    standing = resolve(Options(), variables(tmp_path))
    assert (standing.server, standing.own_folder) == ("http://127.0.0.1:50051", None)
    monkeypatch.setattr("sqlflow.address.is_listening", lambda socket: True)
    assert resolve(Options(), variables(tmp_path)) == found, "it runs already"


def test_who_shows_an_identity_means_no_server_of_their_own(tmp_path: Path) -> None:
    for options in (Options(server_user="sqlflow"), Options(access_token="secret"), Options(access_token_file="t")):
        assert resolve(options, variables(tmp_path)).server == "http://127.0.0.1:50051"
    assert resolve(Options(), variables(tmp_path, SQLFLOW_ACCESS_TOKEN="t")).server == "http://127.0.0.1:50051"


def test_own_server_is_an_address(tmp_path: Path) -> None:
    log_in(tmp_path, "https://a:1")
    named = resolve(Options(), variables(tmp_path, SQLFLOW_SERVER="own", XDG_DATA_HOME=f"{tmp_path}/data"))
    assert (named.server, named.token()) == (f"unix://{tmp_path}/data/sqlflow/own/server.sock", None)
    assert resolve(Options("own"), variables(tmp_path)).own_folder == tmp_path / ".local/share/sqlflow/own"
    assert resolve(Options(), {}).server == "http://127.0.0.1:50051", "without a home folder"
    with pytest.raises(sqlflow.UsageError, match="neither XDG_DATA_HOME nor HOME"):
        resolve(Options("own"), {})


def test_folder_of_another_user_has_no_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve(Options("own"), variables(tmp_path)).own_folder
    assert folder is not None
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    with pytest.raises(sqlflow.UsageError, match="names a folder of yours"):
        resolve(Options("own"), variables(tmp_path))
    folder.chmod(0o700)
    assert resolve(Options("own"), variables(tmp_path)).own_folder == folder
    user = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    for home in (tmp_path, tmp_path / "missing"):
        with pytest.raises(sqlflow.UsageError, match="names a folder of yours"):
            resolve(Options("own"), variables(home))


def test_folder_of_others_has_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runtime"
    (folder / "sqlflow").mkdir(parents=True)
    (folder / "sqlflow" / "server.sock").touch()
    set_here = variables(tmp_path, XDG_RUNTIME_DIR=str(folder))
    folder.chmod(0o777)
    assert resolve(Options(), set_here).server == own(tmp_path)
    folder.chmod(0o700)
    assert resolve(Options(), set_here).server == f"unix://{folder}/sqlflow/server.sock"
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert resolve(Options(), set_here).server == "http://127.0.0.1:50051"


def test_folder_that_cannot_be_searched_has_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **named: Any) -> Any:
        raise PermissionError(errno.EACCES, "refused")

    set_here = variables(tmp_path / "other", XDG_RUNTIME_DIR=str(tmp_path))
    # Root may search every folder.
    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr("sqlflow.address.stored_login", lambda variables: None)
    assert resolve(Options(), set_here).server == "http://127.0.0.1:50051"


def test_certificates_of_ssl_cert_file_have_no_substitute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(sqlflow.UsageError, match=r"cannot read the trusted certificates .*/own\.pem"):
        Address("https://a:1").certificates()
    file.write_bytes(b"own")
    assert Address("https://a:1").certificates()[0] == b"own"


def test_login_is_for_its_own_server_only(tmp_path: Path) -> None:
    log_in(tmp_path, "https://a:1", ca="/ca.pem")
    here = resolve(Options("https://a:1"), variables(tmp_path))
    assert (here.token(), here.ca) == ("secret", Path("/ca.pem"))
    other = resolve(Options("https://b:1"), variables(tmp_path))
    assert (other.token(), other.ca) == (None, None)
    assert "secret" not in repr(here)


@pytest.mark.parametrize("server", ["http://192.0.2.1:1", "http://localhost.example.com:1", "http://127.evil.org:1"])
def test_token_is_not_sent_in_clear_text(server: str, tmp_path: Path) -> None:
    with pytest.raises(sqlflow.UsageError, match="write https://"):
        resolve(Options(server, access_token="secret"), variables(tmp_path))


@pytest.mark.parametrize("server", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:///s", "https://192.0.2.1:1"])
def test_token_is_sent_to_this_machine_and_over_tls(server: str, tmp_path: Path) -> None:
    assert resolve(Options(server, access_token="secret"), variables(tmp_path)).token() == "secret"


def test_token_file_is_read_before_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    address = resolve(Options(access_token_file=file), variables(tmp_path, SQLFLOW_ACCESS_TOKEN="ignored"))
    assert address.token() == "first"
    file.write_text("second\n")
    assert address.token() == "second"
    file.unlink()
    with pytest.raises(sqlflow.UsageError, match="cannot read the access token"):
        address.token()


def test_login_has_all_fields_that_sqlflowctl_stores(tmp_path: Path) -> None:
    log_in(tmp_path, "https://a:1", ca="/ca.pem", server_user="sqlflow")
    found = resolve(Options(), variables(tmp_path))
    assert (found.token(), found.server_user) == ("secret", "sqlflow")
    assert resolve(Options("https://b:1"), variables(tmp_path)).server_user is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"server": 1}', '{"server": "a:1", "unknown": ""}', '{"server": "a:1", "server_user": 7}']
)
def test_damaged_login_is_an_error(text: str, tmp_path: Path) -> None:
    log_in(tmp_path, "https://a:1")
    (tmp_path / ".config/sqlflow/login.json").write_text(text)
    with pytest.raises(sqlflow.UsageError, match="it is damaged"):
        resolve(Options(), variables(tmp_path))


def test_login_is_utf8(tmp_path: Path) -> None:
    log_in(tmp_path, "https://a:1")
    file = tmp_path / ".config/sqlflow/login.json"
    file.write_bytes('{"server": "https://a:1", "ca": "/zertifikat-ä.pem"}'.encode())
    assert resolve(Options(), variables(tmp_path)).ca == Path("/zertifikat-ä.pem")
    file.write_bytes(b'{"server": "https://a:1", "ca": "/\xff.pem"}')
    with pytest.raises(sqlflow.UsageError, match="it is damaged"):
        resolve(Options(), variables(tmp_path))


def test_half_of_a_client_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(sqlflow.UsageError, match="client_key"):
        resolve(Options(client_cert="c.pem"), variables(tmp_path))
