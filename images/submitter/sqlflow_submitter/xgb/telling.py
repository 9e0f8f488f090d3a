"""Tells what XGBoost complains of in one line each: its own lines hold times, files of its source, and stacks."""

from __future__ import annotations

import re
import sys
import warnings
from types import TracebackType
from typing import Any

from xgboost.core import XGBoostError

from sqlflow_submitter.errors import UserError

_told: set[str] = set()


class told_plainly:
    """Within it, a refusal of the library becomes a UserError, and a warning a line on standard error, once.

    Refusals are about data and attributes in all but bugs.
    """

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings()
        self._catching.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = _tell

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._catching.__exit__(kind, error, trace)
        if isinstance(error, XGBoostError):
            raise UserError(f"xgboost: {reason(str(error))}") from error


def reason(text: str) -> str:
    """Finds the sentence in `[time] file.cc:12: Check failed: a > b (0 vs. 1) : sentence`, and a stack after it."""
    text = re.sub(r"^\s*\[[\d:]+\]\s*(WARNING:\s*)?\S+:\d+:\s*", "", text)
    line = next((line for line in text.splitlines() if line.strip()), "no reason given")
    return re.sub(r"^Check failed: .*?\s?: ", "", line).strip()


def _tell(message: Warning | str, *_: Any, **__: Any) -> None:
    line = f"warning: xgboost: {reason(str(message))}"
    if line not in _told:
        _told.add(line)
        print(line, file=sys.stderr, flush=True)
