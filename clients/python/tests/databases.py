"""Real MariaDB and PostgreSQL, as the tests of the submitter start them."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from real_server import REPOSITORY


def servers() -> ModuleType:
    """The module that starts them. Its folder has modules of the same names as this one, so it is no search path."""
    file = REPOSITORY / "images/submitter/tests/servers.py"
    spec = importlib.util.spec_from_file_location("database_servers", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
