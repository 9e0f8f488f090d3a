"""The label column: numbers as they are, classes as codes with the list that maps them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.derive import NUMERIC_KINDS

MAX_CLASSES = 10_000
Class = bool | int | str


class LabelReader:
    """Collects a label column, batch after batch."""

    def __init__(self, column: str, classes: Sequence[Class] | None, as_classes: bool | None) -> None:
        """Args:
        column: name of the label, for messages.
        classes: those of a trained model; None: learn them.
        as_classes: True: values are classes. False: numbers. None: texts are classes, numbers are numbers.
        """
        self.column = column
        self.as_classes = as_classes
        self._learn = classes is None
        self._codes: dict[Class, int] = {value: code for code, value in enumerate(classes or ())}
        self._parts: list[NDArray[np.float64]] = []
        self._nulls = 0
        self._rows = 0

    def add(self, values: Values) -> None:
        """Adds a batch."""
        if self.as_classes is None:
            self.as_classes = values.kind not in NUMERIC_KINDS and any(isinstance(v, str) for v in values.values)
        self._nulls += sum(value is None for value in values.values)
        if self.as_classes and values.kind is Kind.DECIMAL:
            values = Values(Kind.FLOAT, [None if value is None else float(value) for value in values.values])
        self._parts.append(self._class_codes(values) if self.as_classes else self._numbers(values))
        self._rows += len(values.values)

    def finish(self) -> NDArray[np.float64]:
        """Gives the labels of all rows: codes in order of first appearance, or numbers.

        Raises:
            UserError: a label is NULL, or there is no row.
        """
        if self._nulls:
            raise UserError(
                f"label {self.column} is NULL in {self._nulls} of {self._rows} row(s): "
                f"leave them out, as in WHERE {self.column} IS NOT NULL"
            )
        return np.concatenate(self._parts) if self._parts else np.empty(0)

    def seen(self) -> list[Class]:
        """Gives the classes that were met, by code."""
        return list(self._codes)

    def _class_codes(self, values: Values) -> NDArray[np.float64]:
        codes = self._codes
        found = np.empty(len(values.values))
        for row, value in enumerate(values.values):
            if value is None:
                found[row] = np.nan
                continue
            known = self._class(row, value)
            code = codes.get(known)
            if code is None:
                code = self._new_class(row, known)
            found[row] = code
        return found

    def _new_class(self, row: int, value: Class) -> int:
        if not self._learn:
            raise UserError(
                f"label {self.column}, row {self._rows + row + 1}: the model has no class {value!r}; "
                f"it has {', '.join(map(repr, list(self._codes)[:20]))}"
            )
        if len(self._codes) >= MAX_CLASSES:
            raise UserError(f"label {self.column} has more than {MAX_CLASSES} different values: are they classes?")
        code = len(self._codes)
        self._codes[value] = code
        return code

    def _class(self, row: int, value: Any) -> Class:
        if isinstance(value, float):
            if not value.is_integer():
                raise UserError(
                    f"label {self.column}, row {self._rows + row + 1}: {value} is no class: it is not whole"
                )
            return int(value)
        if isinstance(value, bytes):
            raise UserError(f"label {self.column} holds binary data: no class can be made of it")
        return value  # type: ignore[no-any-return]

    def _numbers(self, values: Values) -> NDArray[np.float64]:
        try:
            return np.array(values.values, dtype=np.float64)
        except (ValueError, TypeError):
            wrong = next(value for value in values.values if not _is_number(value))
            raise UserError(
                f"label {self.column} holds {wrong!r}, which is not a number; "
                "for classes use an objective such as multi:softprob or binary:logistic"
            ) from None


def _is_number(value: Any) -> bool:
    try:
        return value is None or float(value) is not None
    except (ValueError, TypeError):
        return False
