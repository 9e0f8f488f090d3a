"""Blocks the import of an optional package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def blocked_import(package: str) -> Iterator[None]:
    """Makes `import package` fail inside the block, unless the package is already imported.

    xgboost imports scikit-learn if it is installed, for an interface that is not used here. That import takes more
    than half a second.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
