"""Whose server listens at an address of this machine: the same rules as those of `sqlflowctl`.

While a server is down, any user can listen at its address, and would get the tokens and data sources of its clients.
The kernel knows whose socket it is.

A gap remains. The check is made before each call, and gRPC connects by itself. So a user who begins to listen between
the two is not noticed. A server with TLS or with a socket of Unix has no such gap.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlflow.address import Address, ip_of, is_this_machine
from sqlflow.errors import UsageError

ROOT = 0
LISTEN = "0A"
"""State of a socket that waits for connections."""
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""The kernel's sockets. Other systems than Linux have no such files."""


def check(address: Address) -> None:
    """Refuses a server without TLS on this machine that belongs to a user who is not trusted.

    Of a server that is not seen here, such as one in a container, nothing is known. Then nothing is refused.

    Raises:
        UsageError: the server belongs to another user, or `server_user` is unknown.
    """
    if not (address.server.startswith("http://") and is_this_machine(address.server)):
        return
    trusted = {ROOT, *_own_ids()}
    if address.server_user is not None:
        trusted.add(_id_of(address.server_user))
    host, _, port = address.server.removeprefix("http://").rpartition(":")
    known = (user for table in TABLES for user in listeners(_text(table), host, int(port)))
    user = next((user for user in known if user not in trusted and _is_one_user(user)), None)
    if user is not None:
        name = _name_of(user)
        raise UsageError(
            f"cannot use the server at {address.server}: it belongs to user {name}, who would get what is sent to it; "
            f"if that is right, name the user with server_user={name!r} or SQLFLOW_SERVER_USER={name}"
        )


def listeners(table: str, host: str, port: int) -> Iterator[int]:
    """Ids of the users who listen at an address, from the text of `/proc/net/tcp` or `/proc/net/tcp6`."""
    for line in table.splitlines()[1:]:
        row = line.split()
        if len(row) < 10 or row[3] != LISTEN:
            continue
        local, _, local_port = row[1].partition(":")
        if int(local_port, 16) == port and _serves(_ip(local), host):
            yield int(row[7])


def _serves(local: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> bool:
    """Whether a socket at `local` accepts connections to this host."""
    wanted = ip_of(host.strip("[]"))
    if wanted is None:
        # The name localhost: 127.0.0.1, ::1, or both.
        return local.is_loopback or local.is_unspecified
    wanted = _canonical(wanted)
    return local == wanted or (local.is_unspecified and local.version >= wanted.version)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of the table: words of 32 bits, in the byte order of this machine."""
    words = (int(text[begin : begin + 8], 16) for begin in range(0, len(text), 8))
    return _canonical(ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))


def _canonical(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that is written as an IPv6 one is the former."""
    return (ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None) or ip


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _own_ids() -> Iterable[int]:
    # Windows has no such function, and no table either.
    return (os.geteuid(),) if hasattr(os, "geteuid") else ()


def _id_of(name: str) -> int:
    """The id of a user, by its name, or written as a number."""
    try:
        import pwd

        return pwd.getpwnam(name).pw_uid
    except (KeyError, ImportError):
        if name.isascii() and name.isdigit():
            return int(name)
    raise UsageError(f"cannot use server_user {name}: there is no such user on this machine")


def _name_of(user: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(user).pw_name
    except (KeyError, ImportError):
        return str(user)


def _is_one_user(user: int) -> bool:
    """Whether the id names one user. In a user namespace one id stands for all that it does not know."""
    is_whole = _text(Path("/proc/self/uid_map")).split() == ["0", "0", "4294967295"]
    unknown = _text(Path("/proc/sys/kernel/overflowuid")).strip() or "65534"
    return is_whole or str(user) != unknown
