"""Turns XGBoost's errors and warnings into one line each.

XGBoost's own text contains timestamps, source locations and stack traces.
"""

from __future__ import annotations

import re
import sys
import warnings
from types import TracebackType
from typing import Any

from xgboost.core import XGBoostError

from sqlflow_submitter.errors import UserError

_printed: set[str] = set()


class translated_errors:
    """Context manager that turns XGBoost's errors into UserErrors, and prints each warning once, on standard error.

    The errors are treated as user errors: apart from bugs, XGBoost rejects only data and attributes.
    """

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings()
        self._catching.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = _print_once

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._catching.__exit__(kind, error, trace)
        if isinstance(error, XGBoostError):
            raise UserError(f"xgboost: {reason(str(error))}") from error
        if isinstance(error, UnicodeDecodeError):
            # Its text quotes bytes of a damaged model, and its package takes them for UTF-8.
            text = error.object.decode("utf-8", "backslashreplace")
            raise UserError(f"xgboost: {reason(text)}") from error


def reason(text: str) -> str:
    """Extracts the sentence of `[time] file.cc:12: Check failed: a > b (0 vs. 1) : sentence`, without the stack."""
    text = re.sub(r"^\s*\[[\d:]+\]\s*(WARNING:\s*)?\S+:\d+:\s*", "", text)
    line = next((line for line in text.splitlines() if line.strip()), "no reason given")
    return re.sub(r"^Check failed: .*?\s?: ", "", line).strip()


def _print_once(message: Warning | str, *_: Any, **__: Any) -> None:
    line = f"warning: xgboost: {reason(str(message))}"
    if line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr, flush=True)
