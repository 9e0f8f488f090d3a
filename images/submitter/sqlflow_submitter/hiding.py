"""Hides an optional package from another's import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Makes `import package` fail meanwhile, unless it is imported already.

    xgboost imports scikit-learn where it is installed, for an interface that is not used here. That takes more than
    half a second, before a TRAIN says anything.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
