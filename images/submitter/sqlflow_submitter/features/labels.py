"""The label column: numbers unchanged, or classes as codes, with the list that maps them back.

If there is no objective, the declared type and all values decide. The log shows the decision and the reason:

- A boolean is a class. A text is a class, too, unless all texts are numbers; then they are read as numbers. If some
  have leading zeros, all are classes.
- Whole numbers are classes if they have at most MAX_WHOLE_CLASSES different values. More than two values must, on
  average, occur twice or more. A single value is a number.
- Other numbers, dates (as days) and larger sets of whole numbers are numbers.
- In a column with texts and typed whole numbers, as SQLite allows, `1` and `'1'` are one class: a whole number if all
  texts are whole numbers, else a text.

The order of rows never matters, so early rows decide nothing. If the declared type allows both, class codes and
numbers are both kept until all rows are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.errors import UserError, listing
from sqlflow_submitter.features import texts
from sqlflow_submitter.features.array_values import ArrayValues
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.encode import text_of
from sqlflow_submitter.features.numbers import NumberReader, Numbers, preview, value_error
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.store import NumberStore, count_distinct
from sqlflow_submitter.features.texts import Form
from sqlflow_submitter.features.vocabulary import NEARLY_ALL
from sqlflow_submitter.values import DATE_KINDS, Kind, Values

MAX_CLASSES = 10_000
MAX_WHOLE_CLASSES = 20
NO_WORDS = (Declared.BOOLEAN, Declared.INTEGER, Declared.DECIMAL, Declared.NUMBER, Declared.DATE)
"""Declared types in which a word is an error."""
CLASS_OBJECTIVES = "multi:softprob or binary:logistic"
Class = bool | int | str
LabelValue = Class | float
"""A fraction is not a class, but it may come before the first word, which shows that the label has classes."""


class LabelReader:
    """Collects a label column, batch by batch."""

    def __init__(
        self,
        column: str,
        classes: Sequence[Class] | None,
        as_classes: bool | None,
        database_type: str = "",
        form: Form | None = None,
        *,
        of_model: bool = False,
    ) -> None:
        """Args:
        column: name of the label, for messages.
        classes: the classes of a trained model; None means that they are learned.
        as_classes: True for classes, False for numbers, None if `finish` decides.
        database_type: the database's name for its declared type; empty if it has none.
        form: NUMBER or DATE if the labels of training have this form; None if unknown.
        of_model: whether a trained model decides what labels are.
        """
        self.column = column
        self.form = form
        """For labels that are numbers: NUMBER or DATE, known after the first value."""
        self._first = ""
        self.as_classes = as_classes
        """Decided after `finish` at the latest."""
        self.reason = ""
        """The reason for the decision, if there was no objective."""
        self._declared = declared(database_type)
        self._learn = classes is None
        of_model = bool(classes) and all(isinstance(value, bool) for value in classes or ())
        types_of_model = set(map(type, classes or ()))
        self._has_whole_classes = types_of_model == {int}
        self._has_text_classes = types_of_model == {str}
        self._has_booleans = self._declared is Declared.BOOLEAN or of_model
        self._codes: dict[LabelValue, int] = {value: code for code, value in enumerate(classes or ())}
        self._first_rows: list[int] = []
        self._parts: list[NDArray[np.float64]] = []
        self._numbers: list[Numbers] = []
        self._not_a_number: UserError | None = None
        self._has_fractions = False
        self._has_too_many = False
        self._has_texts = False
        self._has_codes = False
        advice = f"; for classes use an objective such as {CLASS_OBJECTIVES}"
        if of_model:
            advice = "; the model predicts a number: exclude such rows, or convert the label in the select"
        self._reader = NumberReader(
            f"label {column}",
            None,
            None,
            advice,
            is_boolean=self._has_booleans,
            is_date=self._declared is Declared.DATE,
        )
        self._nulls = 0
        self._rows = 0
        self._report = ColumnReport(column, database_type, "label")

    def add(self, values: Values) -> None:
        """Adds a batch."""
        if self._has_booleans and values.kind in (Kind.TEXT, Kind.MIXED):
            values = Values(Kind.MIXED, list(map(_boolean, values.values)))
        self._nulls += values.values.count(None)
        if self.as_classes is not True:
            self._add_numbers(values)
        is_open = self.as_classes is None and not (self._has_fractions and self._declared in NO_WORDS)
        if self.as_classes or is_open:
            self._add_classes(values)
        self._rows += len(values.values)

    def _add_numbers(self, values: Values) -> None:
        if self._not_a_number is not None:
            return
        wrong: UserError | None
        try:
            numbers, wrong = self._reader.read(values), self._mixed(values)
        except UserError as error:
            if values.kind not in (Kind.TEXT, Kind.MIXED):
                raise
            wrong = error
        if wrong is not None:
            if self.as_classes is False or self._declared in NO_WORDS:
                raise wrong
            self._not_a_number, self._numbers = wrong, []
            return
        self._numbers.append(numbers)
        if values.kind in (Kind.TEXT, Kind.MIXED):
            found = [value for value in values.values if isinstance(value, str)]
            self._has_texts |= bool(found)
            self._has_codes = self._has_codes or (self._declared not in NO_WORDS and any(map(_is_code, found)))
        known = numbers.values[~numbers.missing]
        if values.kind in DATE_KINDS or self._declared is Declared.NUMBER:
            self._has_fractions = True
        elif self._declared is Declared.DECIMAL:
            # Databases print the same value as 1, 1.0 or 1.00.
            self._has_fractions |= bool((known != np.floor(known)).any())
        else:
            is_whole = numbers.values.dtype == np.int64 and not numbers.base and not numbers.has_fractions
            self._has_fractions |= not is_whole and bool(len(known))

    def _mixed(self, values: Values) -> UserError | None:
        """Returns the error for a date among numbers, which would be read as days, or for a number among dates."""
        for place, value in enumerate(values.values):
            if value is None:
                continue
            is_date = values.kind in DATE_KINDS or (isinstance(value, str) and texts.DATE.fullmatch(value) is not None)
            form = Form.DATE if is_date else Form.NUMBER
            row = self._rows + place + 1
            if self.form is None:
                self.form, self._first = form, f"row {row} has {preview(value)}"
            elif form is not self.form:
                first = self._first or f"each label of TRAIN is a {self.form.value}"
                what = f"is a {form.value}, where {first}; CAST all to one type in the select"
                return value_error(f"label {self.column}", row, value, what)
            if values.kind not in (Kind.TEXT, Kind.MIXED):
                # All values have the same kind.
                break
        return None

    def _add_classes(self, values: Values) -> None:
        if values.kind in DATE_KINDS:
            dates = [None if value is None else text_of(values.kind, value) for value in values.values]
            values = Values(Kind.TEXT, dates)
        if values.kind is Kind.DECIMAL:
            values = Values(Kind.MIXED, list(map(_whole_or_float, values.values)))
        self._parts.append(self._class_codes(values))

    def finish(self) -> NDArray[np.float64]:
        """Returns the labels of all rows: codes in order of first appearance, or numbers.

        Raises:
            UserError: a label is NULL or cannot be used.
        """
        if self._nulls:
            raise UserError(
                f"label {self.column} is NULL in {self._nulls} of {self._rows} row(s): "
                f"exclude them, as in WHERE {self.column} IS NOT NULL"
            )
        self._merge_texts_and_numbers()
        if self.as_classes is None and self._rows:
            self._decide()
        if self.as_classes:
            if self._learn and self._is_boolean():
                self._codes = {bool(value): code for value, code in self._codes.items()}
            self._report.taken_as = f"label, {len(self._codes)} classes"
            self._report.distinct = len(self._codes)
            return np.concatenate(self._parts) if self._parts else np.empty(0)
        labels = self._floats()
        if (np.abs(labels) > np.finfo(np.float32).max).any():
            row = int(np.argmax(np.abs(labels) > np.finfo(np.float32).max))
            raise value_error(f"label {self.column}", row + 1, float(labels[row]), "is too large for 32 bits")
        self._report.taken_as = "label, a number"
        self._report.distinct = self._count_numbers()
        self._warn_about_precision(labels)
        return labels

    def _merge_texts_and_numbers(self) -> None:
        """Makes a typed whole number and its text one class, if the column has texts and typed whole numbers."""
        is_typed = [isinstance(value, int) and not isinstance(value, bool) for value in self._codes]
        found_texts = [value for value in self._codes if isinstance(value, str)]
        if not self._learn or not any(is_typed) or not found_texts:
            return
        of_text: dict[Class, int] = {text: whole for text in found_texts if (whole := _whole_of(text)) is not None}
        if len(of_text) < len(found_texts) or any(map(_is_code, found_texts)):
            names: list[LabelValue] = [str(v) if typed else v for v, typed in zip(self._codes, is_typed, strict=True)]
        else:
            names = [of_text.get(value, value) if isinstance(value, str) else value for value in self._codes]
            self._has_texts = False
        rows = self._first_rows
        self._codes, self._first_rows, places = {}, [], []
        for name, row in zip(names, rows, strict=True):
            if name not in self._codes:
                self._codes[name] = len(self._codes)
                self._first_rows.append(row)
            places.append(self._codes[name])
        # The last entry is for values beyond the limit.
        final = np.array([*places, *[MAX_CLASSES] * (MAX_CLASSES + 1 - len(places))], dtype=np.float64)
        self._parts = [final[part.astype(np.int64)] for part in self._parts]

    def _floats(self) -> NDArray[np.float64]:
        return np.concatenate([part.floats() for part in self._numbers]) if self._numbers else np.empty(0)

    def _count_numbers(self) -> int:
        """Counts the distinct numbers. As floats, large whole numbers could be equal."""
        store = NumberStore(is_date=False)
        for part in self._numbers:
            store.add(part)
        return store.count()

    def _warn_about_precision(self, labels: NDArray[np.float64]) -> None:
        lost = (self._report.distinct or 0) - count_distinct(labels.astype(np.float32))
        if lost > 0:
            self._report.warn(
                "loses precision",
                f"{lost} of its {self._report.distinct} different values become equal to others in XGBoost's 32 bits; "
                "subtract a constant in the select, or use a larger unit",
            )

    def report(self) -> ColumnReport:
        """Returns the report about the label. To be called after `finish`."""
        return self._report

    def _decide(self) -> None:
        """Decides between classes and numbers, when all rows are known."""
        self.as_classes, self.reason = self._choice()

    def _choice(self) -> tuple[bool, str]:
        name, count = f"label {self.column}", len(self._codes)
        found = () if self._declared in NO_WORDS else self._codes
        is_code = any(isinstance(value, str) and _is_code(value) for value in found)
        if self._not_a_number is not None or self._has_codes or is_code:
            if self._has_too_many:
                raise self._too_many()
            self._check_words(self._has_codes or is_code)
            return True, f"{name} holds {count} different texts"
        if self._has_fractions:
            return False, f"{name} {self._number_reason()}"
        if self._is_boolean():
            return True, f"{name} is boolean"
        kind = "texts that are whole numbers" if self._has_texts else "whole numbers"
        if count == 1:
            self._report.warn("constant", "it has the same value in every row: a model cannot learn from it")
            return False, f"{name} has one whole number only"
        if count <= MAX_WHOLE_CLASSES and (count == 2 or 2 * count <= self._rows):
            return True, f"{name} holds {kind} of {count} different values, and up to {MAX_WHOLE_CLASSES} are classes"
        at_most = f"at most {MAX_WHOLE_CLASSES} that occur twice on average"
        return False, f"{name} holds {kind} of {self._count_numbers()} different values, where {at_most} are classes"

    def _number_reason(self) -> str:
        if self.form is Form.DATE:
            return "holds dates, which are predicted as days since 1970-01-01"
        labels = self._floats()
        distinct = count_distinct(labels) if bool((labels == np.floor(labels)).all()) else 0
        if 0 < distinct <= MAX_WHOLE_CLASSES:
            self._report.warn(
                "whole numbers",
                f"its type allows fractions, but it holds {distinct} different whole numbers; "
                f"if they are classes, set objective, for example to {CLASS_OBJECTIVES}",
            )
        return "holds numbers that are not whole, by type or value"

    def _is_boolean(self) -> bool:
        typed = bool(self._codes) and all(isinstance(value, bool) for value in self._codes)
        return typed or (self._declared is Declared.BOOLEAN and set(self._codes) <= {0, 1})

    def _check_words(self, has_codes: bool) -> None:
        """Rejects words among numbers, unless some are codes. Warns about classes that look like missing values."""
        counts = np.bincount(np.concatenate(self._parts).astype(np.int64), minlength=len(self._codes))
        total = int(counts.sum())
        forms = [texts.form_of(value) if isinstance(value, str) else Form.NUMBER for value in self._codes]
        for form in (Form.NUMBER, Form.DATE):
            has_form = np.array([found is form for found in forms])
            most = int(counts[has_form].sum())
            if most == total and self._not_a_number is not None:
                # A number or date that is outside the range of every type.
                raise self._not_a_number
            if NEARLY_ALL * total <= most < total and not has_codes:
                place = int(np.argmin(has_form))
                value = list(self._codes)[place]
                what = f"is not a {form.value}, as {most} of {total} values are; exclude such rows, or set objective"
                raise value_error(f"label {self.column}", self._first_rows[place], value, what)
        for value, row in zip(self._codes, self._first_rows, strict=True):
            if isinstance(value, float):
                raise self._not_whole(row, value)
        blank = [code for code, value in enumerate(self._codes) if isinstance(value, str) and texts.is_missing(value)]
        if blank:
            value = list(self._codes)[blank[0]]
            rows = int(counts[blank[0]])
            self._report.warn("a class like a missing value", f"{value!r} is one of its classes, in {rows} row(s)")
        if 2 * len(self._codes) > total and total >= MAX_WHOLE_CLASSES:
            self._report.warn("nearly unique", f"it has {len(self._codes)} different texts in {total} rows")

    def _too_many(self) -> UserError:
        return UserError(
            f"label {self.column} has more than {MAX_CLASSES} different values, which is too many for classes"
        )

    def _not_whole(self, row: int, value: float) -> UserError:
        return value_error(f"label {self.column}", row, value, "is not a class: it is not a whole number")

    def seen(self) -> list[Class]:
        """Returns the classes seen so far, by code."""
        return [value for value in self._codes if not isinstance(value, float)]

    def _class_codes(self, values: Values) -> NDArray[np.float64]:
        raw = values.values
        if isinstance(raw, ArrayValues) and raw.array.dtype.kind in "iu" and not raw.count(None):
            # Each different value once, in the order of the first rows.
            different, rows, places = np.unique(raw.array, return_index=True, return_inverse=True)
            codes = np.empty(len(different))
            for place in np.argsort(rows).tolist():
                codes[place] = self._class_code(int(rows[place]), int(different[place]))
            return codes[places]
        found = np.empty(len(raw))
        for row, value in enumerate(raw):
            found[row] = np.nan if value is None else self._class_code(row, value)
        return found

    def _class_code(self, row: int, value: Any) -> int:
        known = self._class(row, value)
        code = self._codes.get(known)
        if code is None and not self._learn:
            code = self._codes.get(self._class_of_model(known))
        return self._new_class(row, known) if code is None else code

    def _new_class(self, row: int, value: LabelValue) -> int:
        if not self._learn:
            known = listing([repr(code) for code in self._codes], 20)
            what = f"is not a class of the model, which has {known}"
            raise value_error(f"label {self.column}", self._rows + row + 1, value, what)
        if len(self._codes) >= MAX_CLASSES:
            if self.as_classes is None:
                # The label has numbers, or `finish` raises an error.
                self._has_too_many = True
                return MAX_CLASSES
            raise self._too_many()
        code = len(self._codes)
        self._codes[value] = code
        self._first_rows.append(self._rows + row + 1)
        return code

    def _class_of_model(self, value: Any) -> Any:
        """Converts a value to the type of the model's classes: a text to a whole number, or the reverse."""
        if isinstance(value, bool | float):
            return value
        if isinstance(value, str) and self._has_whole_classes:
            whole = _whole_of(value)
            return value if whole is None else whole
        return str(value) if isinstance(value, int) and self._has_text_classes else value

    def _class(self, row: int, value: Any) -> LabelValue:
        if isinstance(value, float):
            if math.isfinite(value) and value.is_integer():
                return int(value)
            if self.as_classes:
                raise self._not_whole(self._rows + row + 1, value)
            return value
        if isinstance(value, bytes):
            what = "is binary data, or text that is not UTF-8, and cannot be a class"
            raise value_error(f"label {self.column}", self._rows + row + 1, value, what)
        return value  # type: ignore[no-any-return]


def _is_code(text: str) -> bool:
    return texts.form_of(text) is Form.CODE


def _whole_of(text: str) -> int | None:
    """Returns the whole number that a text means, such as `7`, `07` and `7.0`, or None."""
    number = texts.number(text)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def _whole_or_float(decimal: str | None) -> int | float | None:
    if decimal is None:
        return None
    number = texts.number(decimal)
    return float(decimal) if number is None else number


def _boolean(value: Any) -> Any:
    return texts.BOOLEANS.get(value.strip().lower(), value) if isinstance(value, str) else value
