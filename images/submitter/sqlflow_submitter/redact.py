"""Keeps secrets out of what is said.

No message of ours is built from a DSN. This is the second line of defence: drivers' messages and tracebacks pass
through it.
"""

from __future__ import annotations

import re

MASK = "***"
SHORTEST = 4
"""A shorter password is not searched for: hiding every `a` would make a message unreadable, and tell the password."""


class Redactor:
    """Replaces the data source's address and password in text."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def add_dsn(self, dsn: str) -> None:
        """Adds a data source whose text and password must not be seen."""
        # User information ends at the last `@`: a password may hold an unescaped one.
        found = re.findall(r"^[a-zA-Z0-9+]+://[^:@/]*:(.*)@|[?&]password=([^&]*)", dsn, re.DOTALL)
        passwords = {password for groups in found for password in groups}
        if any("%" in password for password in passwords):
            from urllib.parse import unquote

            passwords |= {unquote(password) for password in passwords}
        secrets = {dsn, *passwords}
        self._secrets += sorted((s for s in secrets if len(s) >= SHORTEST), key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Gives the text with every secret in it masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
