"""Decides which classes a label has, and assigns a code to each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError, listing
from sqlflow_submitter.features.labels import Class
from sqlflow_submitter.xgb.objectives import Task
from sqlflow_submitter.xgb.parameters import Parameters

Codes = NDArray[np.float64]


def assign_class_codes(
    label: str, seen: Sequence[Class], codes: Codes, parameters: Parameters
) -> tuple[list[Class], Codes]:
    """Assigns codes to classes, independently of the order of rows, and chooses the objective if none is set.

    Whole numbers from 0 are their own codes. Other classes are sorted.

    Args:
        label: the column's name, for messages.
        seen: the classes in order of first appearance.
        codes: an index into `seen` for each row.
        parameters: `objective` and `num_class` are set here if they are derived.

    Returns the classes by final code, and the final code of each row.

    Raises:
        UserError: the classes do not fit the objective or `num_class`.
    """
    if parameters.task is None:
        # Only objectives for several classes take num_class.
        is_binary = len(seen) <= 2 and "num_class" not in parameters.native
        parameters.set_objective("binary:logistic" if is_binary else "multi:softprob")
    objective = parameters.native["objective"]
    shown = listing(sorted(seen, key=_order), 10)
    given: int | None = parameters.native.get("num_class")
    if parameters.task is Task.BINARY:
        if len(seen) > 2:
            raise UserError(
                f"objective {objective} needs two classes, label {label} has {len(seen)}: {shown}; use multi:softprob"
            )
        # `Parameters` has rejected num_class.
        wanted = 2
    else:
        if given is not None and len(seen) > given:
            raise UserError(f"attribute num_class is {given}, but label {label} has {len(seen)} classes: {shown}")
        wanted = given or len(seen)
    classes = _classes(seen, wanted)
    if len(seen) < 2:
        raise UserError(f"cannot train: label {label} has one class only, {shown}; select rows of another class, too")
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
    """Sort key: numbers by value, then texts in alphabetical order."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")
