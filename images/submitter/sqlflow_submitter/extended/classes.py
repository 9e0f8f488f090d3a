"""Settles which classes a label has, and which code each gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.labels import Class
from sqlflow_submitter.xgb.objectives import Task
from sqlflow_submitter.xgb.parameters import Parameters

Codes = NDArray[np.float64]


def assign_class_codes(
    label: str, seen: Sequence[Class], codes: Codes, parameters: Parameters
) -> tuple[list[Class], Codes]:
    """Chooses the objective where none was given, and codes that do not hang on the order of rows.

    Whole numbers from 0 keep themselves as codes; anything else is sorted.

    Args:
        label: the column's name, for messages.
        seen: classes in the order in which they were met.
        codes: places in `seen`, one for each row.
        parameters: gets `objective` and `num_class` where they are derived.

    Returns the classes by their final codes, and the rows' final codes.

    Raises:
        UserError: the classes do not fit the objective or `num_class`.
    """
    if parameters.task is None:
        # Only those of several classes have a number of them.
        is_binary = len(seen) <= 2 and "num_class" not in parameters.native
        parameters.set_objective("binary:logistic" if is_binary else "multi:softprob")
    objective = parameters.native["objective"]
    shown = ", ".join(str(value) for value in sorted(seen, key=_order)[:10]) + (" …" if len(seen) > 10 else "")
    given: int | None = parameters.native.get("num_class")
    if parameters.task is Task.BINARY:
        if len(seen) > 2:
            raise UserError(
                f"objective {objective} needs two classes, label {label} has {len(seen)}: {shown}; use multi:softprob"
            )
        # `Parameters` has refused num_class.
        wanted = 2
    else:
        if given is not None and len(seen) > given:
            raise UserError(f"attribute num_class is {given}, but label {label} has {len(seen)} classes: {shown}")
        wanted = given or len(seen)
    classes = _classes(seen, wanted)
    if len(seen) < 2:
        raise UserError(f"label {label} has one class only, {shown}: there is nothing to learn")
    if given is not None and given > len(classes):
        raise UserError(
            f"attribute num_class is {given}, but label {label} has {len(classes)} classes: {shown}; leave it out"
        )
    if parameters.task is Task.MULTI:
        parameters.native["num_class"] = max(wanted, len(classes))
    places = {value: code for code, value in enumerate(classes)}
    final = np.array([places[value] for value in seen], dtype=np.float64)
    return classes, final[codes.astype(np.int64)]


def _classes(seen: Sequence[Class], wanted: int) -> list[Class]:
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in seen)
    if whole and all(0 <= int(value) < wanted for value in seen):
        return list(range(wanted))
    if all(isinstance(value, bool) for value in seen):
        return [False, True]
    return sorted(seen, key=_order)


def _order(value: Class) -> tuple[bool, float, str]:
    """Numbers by size, then texts by alphabet."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")
