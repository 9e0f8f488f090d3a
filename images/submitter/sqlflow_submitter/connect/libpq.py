"""psycopg's binding to libpq, without the rest of psycopg.

`import psycopg` takes about 100 ms longer than its `pq` module (asyncio, type adapters, connection classes), and a
`SELECT 1` would wait for that. Python runs a package's `__init__` before its submodules, so an empty package object is
registered first. A test checks that the large modules are not imported.
"""

from __future__ import annotations

import importlib.util
import sys


def _without_init(package: str) -> None:
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"cannot import {package}: it is not installed")
    sys.modules[package] = importlib.util.module_from_spec(spec)


_without_init("psycopg")

from psycopg import pq  # noqa: E402
from psycopg.errors import OperationalError  # noqa: E402
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus  # noqa: E402

__all__ = ["ConnStatus", "DiagnosticField", "ExecStatus", "OperationalError", "TransactionStatus", "pq"]
