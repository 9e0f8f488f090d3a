"""Keeps secrets out of messages.

This package puts no DSN into its own messages. Redaction is the second line of defence, for the drivers' messages and
for tracebacks.
"""

from __future__ import annotations

MASK = "***"
MIN_SECRET_LENGTH = 4
"""Minimum length of a password to mask: masking every `a` would make a message unreadable and reveal the password."""


class Redactor:
    """Masks DSNs and passwords in text."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def add_dsn(self, dsn: str) -> None:
        """Adds a DSN: the whole of it and its password are masked from now on."""
        import re

        # The user information ends at the last `@`: a password may contain an unescaped one.
        found = re.findall(r"^[a-zA-Z0-9+]+://[^:@/]*:(.*)@|[?&]password=([^&]*)", dsn, re.DOTALL)
        passwords = {password for groups in found for password in groups}
        if any("%" in password for password in passwords):
            from urllib.parse import unquote

            passwords |= {unquote(password) for password in passwords}
        secrets = {dsn, *passwords}
        self._secrets += sorted((s for s in secrets if len(s) >= MIN_SECRET_LENGTH), key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Returns the text with every secret in it masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
