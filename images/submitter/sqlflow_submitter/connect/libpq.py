"""psycopg's binding to libpq, without the rest of psycopg.

`import psycopg` takes some 100 ms more than its `pq` module needs (asyncio, type adapters, connection classes), and a
`SELECT 1` would wait for it. Python runs a package's `__init__` before its submodules; so the package is put in its
place unexecuted. A test checks that this stays quick, and that a later plain import would still be told.
"""

from __future__ import annotations

import importlib.util
import sys


def _without_init(package: str) -> None:
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"package {package} is not installed")
    sys.modules[package] = importlib.util.module_from_spec(spec)


_without_init("psycopg")

from psycopg import pq  # noqa: E402
from psycopg.errors import OperationalError  # noqa: E402
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus  # noqa: E402

__all__ = ["ConnStatus", "DiagnosticField", "ExecStatus", "OperationalError", "pq"]
