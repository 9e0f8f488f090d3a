"""Where the server is, and how the caller shows who it is: the same rules as those of `sqlflowctl`.

Each setting comes from an argument, its variable, or the login that `sqlflowctl login` stored, in this order.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlflow.errors import UsageError

CLIENTS_PORT = 50051
DEFAULT_SERVER = f"http://127.0.0.1:{CLIENTS_PORT}"
"""Server of a user who names none, if one listens there."""
OWN = "own"
"""Name of a server of the user's own, in place of an address."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller of `connect` may set. None: the variable, or the login."""

    server: str | None = None
    access_token: str | None = field(default=None, repr=False)
    access_token_file: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    client_cert: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    server_user: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """What `sqlflowctl login` stores."""

    server: str
    access_token: str = field(default="", repr=False)
    ca: str | None = None
    server_user: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and the caller's identity."""

    server: str
    """Its URL: `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`."""
    access_token: str | None = field(default=None, repr=False)
    access_token_file: Path | None = None
    """Read before each call, because it may be renewed."""
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_user: str | None = None
    """User whose server this is, if it is on this machine and without TLS."""
    own_folder: Path | None = None
    """Folder of the user's own server, if it is that one: it is started when it is needed."""

    def target(self) -> str:
        """The server in gRPC's notation."""
        if self.server.startswith("unix://"):
            return "unix:" + self.server.removeprefix("unix://")
        return self.server.partition("://")[2]

    def has_tls(self) -> bool:
        return self.server.startswith("https://")

    def token(self) -> str | None:
        """The access token now.

        Raises:
            UsageError: its file cannot be read.
        """
        if self.access_token_file is None:
            return self.access_token
        return _read(self.access_token_file, "the access token").decode(errors="replace").strip()

    def certificates(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Trusted certificates, the client's key, and its certificate, as PEM.

        Raises:
            UsageError: a file cannot be read.
        """
        ca = self.ca or system_certificates()
        trusted = None if ca is None else _read(ca, "the trusted certificates")
        key = None if self.client_key is None else _read(self.client_key, "the client's key")
        certificate = None if self.client_cert is None else _read(self.client_cert, "the client's certificate")
        return trusted, key, certificate


def resolve(options: Options, variables: Mapping[str, str] = os.environ) -> Address:
    """Finds the server and the identity.

    Raises:
        UsageError: a setting is wrong, the login is damaged, or the access token would be sent in clear text.
    """

    def setting(given: str | os.PathLike[str] | None, variable: str) -> str | None:
        return os.fspath(given) if given is not None else variables.get(variable) or None

    def path(given: str | os.PathLike[str] | None, variable: str) -> Path | None:
        text = setting(given, variable)
        return None if text is None else Path(text).expanduser()

    wanted = setting(options.server, "SQLFLOW_SERVER")
    server = None if wanted is None else OWN if wanted == OWN else server_url(wanted)
    login = stored_login(variables)
    if login is not None and server not in (None, login.server):
        # A login is for its own server: its token is not sent to others.
        login = None
    if server is None:
        # Who shows an identity, or names a user, means a server of others.
        named = (
            setting(options.server_user, "SQLFLOW_SERVER_USER"),
            setting(options.access_token, "SQLFLOW_ACCESS_TOKEN"),
            setting(options.access_token_file, "SQLFLOW_ACCESS_TOKEN_FILE"),
            setting(options.client_cert, "SQLFLOW_CLIENT_CERT"),
        )
        server = login.server if login is not None else default_server(variables, may_be_own=not any(named))
    folder = _needed_folder(variables) if server == OWN else None
    if folder is not None:
        server = f"unix://{own_socket(folder)}"
    token, token_file = options.access_token, path(options.access_token_file, "SQLFLOW_ACCESS_TOKEN_FILE")
    if token is not None:
        token_file = None
    elif token_file is None:
        token = variables.get("SQLFLOW_ACCESS_TOKEN") or (login.access_token if login is not None else "") or None
    ca = path(options.ca, "SQLFLOW_CA")
    if ca is None and login is not None and login.ca is not None:
        ca = Path(login.ca)
    server_user = setting(options.server_user, "SQLFLOW_SERVER_USER") or (login.server_user if login else None)
    certificate = path(options.client_cert, "SQLFLOW_CLIENT_CERT")
    key = path(options.client_key, "SQLFLOW_CLIENT_KEY")
    if (certificate is None) != (key is None):
        missing = "client_key (SQLFLOW_CLIENT_KEY)" if key is None else "client_cert (SQLFLOW_CLIENT_CERT)"
        raise UsageError(f"cannot use a client certificate: its other half is missing; give {missing}, too")
    if (token is not None or token_file is not None) and not is_private(server):
        raise UsageError(f"cannot send the access token to {server}: it could be read on its way; write https://")
    return Address(server, token, token_file, ca, certificate, key, server_user, folder)


def server_url(text: str) -> str:
    """A server's URL, from `HOST:PORT`, `:PORT` for this machine, `http://…`, `https://…`, or `unix:///PATH`.

    Raises:
        UsageError: the address is malformed.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or len(path) < 2:
            raise _wrong(text, "write unix:///PATH")
        return f"unix://{path}"
    scheme, separator, address = text.partition("://")
    if not separator:
        scheme, address = "http", text
    elif scheme not in ("http", "https"):
        raise _wrong(text, f"{scheme}:// is not supported; write http://HOST:PORT, https://HOST:PORT or unix:///PATH")
    address = address.rstrip("/") if separator else address
    if ip_of(address) is not None and ":" in address:
        raise _wrong(text, f"the port is missing; write [{address}]:{CLIENTS_PORT}")
    host, colon, port = address.rpartition(":")
    if not colon:
        is_port = address.isascii() and address.isdigit()
        example = f":{address}" if is_port else f"{address or 'localhost'}:{CLIENTS_PORT}"
        raise _wrong(text, f"the port is missing; write {example}")
    if re.search(r"[/@ ]", host) or "/" in port:
        raise _wrong(text, "it has the form HOST:PORT")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise _wrong(text, f"{port!r} is not a port; write HOST:PORT, with a number")
    return f"{scheme}://{host or 'localhost'}:{int(port)}"


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"cannot use {text!r} as the server's address: {why}")


def default_server(variables: Mapping[str, str], may_be_own: bool) -> str:
    """The socket of a server of this user, if there is one. Otherwise the server of the usual port, if there is one and
    the user's own does not run. Otherwise the user's own, if it may be that."""
    folder = variables.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(folder):
        # What is checked is what is used, wherever a link leads later.
        folder = os.path.realpath(folder)
        standing = Path(folder) / "sqlflow" / "server.sock"
        # Not Path.exists, which raises PermissionError for another user's folder.
        if _is_own_folder(folder) and os.path.exists(standing):
            return f"unix://{standing}"
    own = own_folder(variables) if may_be_own and hasattr(socket, "AF_UNIX") else None
    if own is None:
        return DEFAULT_SERVER
    return OWN if is_listening(own_socket(own)) or not is_port_open(CLIENTS_PORT) else DEFAULT_SERVER


def _is_own_folder(folder: str) -> bool:
    """Whether a folder belongs to this user, and no other user can create files in it.

    `sudo -E` and `su` keep the variables of another user, whose server it would be.
    """
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def own_folder(variables: Mapping[str, str]) -> Path | None:
    """Folder of the user's own server, for `sqlflowctl` too. None: the variables name no folder of this user."""
    for variable, below in (("XDG_DATA_HOME", ""), ("HOME", ".local/share")):
        home = variables.get(variable, "")
        if os.path.isabs(home):
            folder = Path(home) / below / "sqlflow" / "own"
            return folder if _may_be_own(folder) else None
    return None


def _may_be_own(folder: Path) -> bool:
    """Whether this is a folder of the user, or the first folder above it that exists belongs to them."""
    for found in (folder, *folder.parents):
        try:
            is_own = os.stat(found).st_uid == os.geteuid()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return is_own and (found != folder or _is_own_folder(str(folder)))
    return False


def _needed_folder(variables: Mapping[str, str]) -> Path:
    folder = own_folder(variables)
    if folder is None:
        raise UsageError("cannot use a server of your own: neither XDG_DATA_HOME nor HOME names a folder of yours")
    return folder


def own_socket(folder: Path) -> Path:
    """Where the user's own server listens."""
    return folder / "server.sock"


def is_listening(path: Path) -> bool:
    """Whether a server listens on this socket. Its file may be left of one that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def is_port_open(port: int) -> bool:
    """Whether a program listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def is_private(server: str) -> bool:
    """Whether nobody else can read what is sent there."""
    return server.startswith("https://") or is_this_machine(server)


def is_this_machine(server: str) -> bool:
    """Whether the server is on this machine."""
    scheme, _, address = server.partition("://")
    host = address.rpartition(":")[0] or address
    ip = ip_of(host.strip("[]"))
    return scheme == "unix" or host == "localhost" or (ip is not None and ip.is_loopback)


def ip_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text is; None: it is a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def stored_login(variables: Mapping[str, str]) -> Login | None:
    """What `sqlflowctl login` stored; None: there is no login.

    Raises:
        UsageError: the login cannot be read.
    """
    file = _login_file(variables)
    if file is None:
        return None
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the login {file}: {error.strerror}") from error
    try:
        return _login(json.loads(stored.decode()))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"cannot use the login {file}: it is damaged; log in again, or remove it with sqlflowctl logout"
        ) from error


def _login(stored: Any) -> Login:
    login = Login(**stored)
    optional = (text for text in (login.ca, login.server_user) if text is not None)
    if not all(isinstance(text, str) for text in (login.server, login.access_token, *optional)):
        raise TypeError("not a text")
    return login


def _login_file(variables: Mapping[str, str]) -> Path | None:
    for variable, below in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        folder = variables.get(variable, "")
        if os.path.isabs(folder):
            return Path(folder) / below / "sqlflow" / "login.json"
    return None


def system_certificates() -> Path | None:
    """The file of certificates that this system trusts; None: gRPC takes its own."""
    named = os.environ.get("SSL_CERT_FILE")
    if named:
        # Also if it cannot be read: others must not be trusted in its place.
        return Path(named)
    file = ssl.get_default_verify_paths().cafile
    usual = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    for candidate in (file, *usual):
        if candidate is not None and os.path.isfile(candidate):
            return Path(candidate)
    return None


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {what} {file}: {error.strerror}") from error
