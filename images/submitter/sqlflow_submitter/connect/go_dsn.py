"""The DSN format of Go's MySQL driver, which SQLFlow's sessions use for MySQL servers."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from sqlflow_submitter.errors import UserError

EXPECTED = "expected mysql://user:password@tcp(host:3306)/database"
DEFAULT_PORT = 3306


class GoDsn(NamedTuple):
    """The address of a MySQL server, and the login."""

    user: str
    password: str
    host: str
    port: int
    unix_socket: str | None
    database: str
    options: dict[str, str]

    def address(self) -> str:
        """Returns the server's name for messages."""
        return self.unix_socket or f"{self.host}:{self.port}"


def parse_go_dsn(text: str) -> GoDsn:
    """Parses `user:password@tcp(host:port)/database?option=value`, and `user:password@host:port/database`.

    As in Go, the password is not escaped: the last `/` begins the database, and the last `@` before it ends the
    password.

    Raises:
        UserError: it is malformed. The message has no part of the text, which may be a password.
    """
    place, slash, rest = text.rpartition("/")
    if not slash:
        raise UserError(f"cannot read data source mysql: there is no / before the database's name; {EXPECTED}")
    database, _, query = rest.partition("?")
    login, _, address = place.rpartition("@")
    user, _, password = login.partition(":")
    match = re.fullmatch(r"(?:(tcp|unix)\((.*)\)|([^()]*))", address)
    if match is None:
        raise UserError(f"data source mysql has an address that cannot be read; {EXPECTED}")
    network, inside, plain = match.groups()
    options = dict(_option(part) for part in query.split("&") if part)
    if network == "unix":
        return GoDsn(user, password, "", 0, inside, unquote(database), options)
    host, port = _host_and_port(inside if inside is not None else plain)
    return GoDsn(user, password, host, port, None, unquote(database), options)


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(\d+))?", address)
    if match is None or int(match.group(2) or DEFAULT_PORT) > 65535:
        raise UserError(f"data source mysql has an address that cannot be read; {EXPECTED}")
    return match.group(1).strip("[]") or "127.0.0.1", int(match.group(2) or DEFAULT_PORT)


def _option(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, unquote(value)
