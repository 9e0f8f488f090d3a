"""The time zone in which a MySQL session prints columns of type TIMESTAMP. The server stores them in UTC."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

SYSTEM = "SYSTEM"
OFFSET = re.compile(r"([-+])(\d\d?):(\d\d)", re.ASCII)


def time_zone(session: str, system: str) -> tzinfo | None:
    """Returns a time zone from `@@session.time_zone` and `@@system_time_zone`, or None if it is not known.

    The name of the system's zone is an abbreviation such as `CST`, which may mean several zones.
    """
    name = session
    if session == SYSTEM:
        if system not in ("UTC", "GMT"):
            return None
        name = "UTC"
    if match := OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset)
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        return None
