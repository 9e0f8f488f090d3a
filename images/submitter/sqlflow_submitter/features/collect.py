"""Collects a column of the training data, and decides its feature when all values are known.

The rules:

- A column declared as boolean, whole number or number is a number. A date or timestamp is a number of days since 1970.
- The values decide about text columns, and about columns without a declared type (SQLite's expressions). Only numbers:
  a number. Only ISO dates: days. Only lists like `1,2,3` of one length: a vector. Only texts like `3:0.5 9:1`: sparse,
  with a width given by the highest index of all rows. Otherwise the texts are categories, called a *vocabulary*.
- Texts with one pair each, such as `16:9` and `10:30`, are categories, because they may be times or ratios. Numbers of
  which some have leading zeros are categories, too: as codes, `01` and `1` differ.
- If NEARLY_ALL rows, or different texts, are numbers, dates or lists, the rest does not turn them into a vocabulary. An
  empty text or a word for a missing value is missing, with a warning. Any other value is an error.
- Numbers and words in one column are an error.
- A column without any value is omitted, with a warning.

The order of rows does not matter: the same rows give the same features, or an error. If there are more different texts
than a vocabulary may have, all must have the same form. So the form is decided when the dictionary is full, and each
later text must have it. Two cases stay open. Texts that all mean a missing value decide nothing. Single pairs are
sparse if a later row has two or more pairs; otherwise they are an error.

Memory: 4 bytes for each number of the matrix, or 8 if `store` needs them. 8 bytes for each row of sparse texts, and 12
for each pair. `dictionary` states the memory for other texts.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.dictionary import MAX_VOCABULARY, Text, Texts
from sqlflow_submitter.features.encode import TOO_LARGE, Block, Columns, SparseBlock
from sqlflow_submitter.features.matrix import EncodedFeature
from sqlflow_submitter.features.numbers import DATE_ADVICE, NumberReader, Tally, value_error
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.spec import DENSE, SPARSE, Feature
from sqlflow_submitter.features.store import NumberStore
from sqlflow_submitter.features.texts import Form, form_of
from sqlflow_submitter.features.vocabulary import FEW_ROWS, NEARLY_ALL, build_vocabulary, warn_about_texts
from sqlflow_submitter.values import DATE_KINDS, NUMERIC_KINDS, Kind, Values

MAX_SPARSE_WIDTH = 10_000_000
KEY_NAME = re.compile(r"(.*_)?(row)?(id|uuid|guid|key)|.*Id|.*ID")


class LearnedColumn(NamedTuple):
    """The result for a column."""

    feature: Feature | None
    """None: the column is omitted."""
    block: Block
    report: ColumnReport


class Collector:
    """Collects one column, batch by batch."""

    def __init__(self, column: str, database_type: str, is_named: bool = False) -> None:
        """Args:
        column: the column's name.
        database_type: the database's name for its declared type; empty if it has none.
        is_named: the COLUMN clause has DENSE for it. Words are then an error, and the column is never omitted.
        """
        self.column = column
        self._type = database_type
        self._declared = declared(database_type)
        self._must_be_number = is_named or self._declared is Declared.DATE
        self._is_named = is_named
        self._rows = 0
        self._tally = Tally(column)
        self._nulls = 0
        self._texts = Texts()
        self._reader: NumberReader | None = None
        self._store: NumberStore | None = None
        self._lists: EncodedFeature | None = None
        self._pending_error: UserError | None = None
        """The error to raise if no row of a sparse text has two pairs."""
        if self._declared in (Declared.BOOLEAN, Declared.INTEGER, Declared.DECIMAL, Declared.NUMBER):
            self._settle_as(Form.NUMBER)

    def add(self, columns: Columns) -> None:
        """Adds a batch, given by column name."""
        values = columns[self.column]
        if self._is_open():
            self._find_typed_values(values)
        if self._reader is not None and self._store is not None:
            self._store.add(self._reader.read(values))
        else:
            self._nulls += values.values.count(None)
            if self._lists is not None:
                self._add_lists(self._lists, values)
            else:
                self._texts.add(values.values, self._rows)
        self._rows += len(values.values)
        if self._is_open() and self._texts.codes and self._texts.is_full():
            self._settle_texts()

    def _is_open(self) -> bool:
        return self._reader is None and self._lists is None

    def _find_typed_values(self, values: Values) -> None:
        """Looks for numbers, dates and binary data while the column may still be texts."""
        if values.kind in DATE_KINDS:
            self._settle_as(Form.DATE)
        elif values.kind in NUMERIC_KINDS:
            self._settle_as(Form.NUMBER)
        elif values.kind is not Kind.TEXT:
            for row, value in enumerate(values.values):
                if isinstance(value, bytes):
                    row += self._rows + 1
                    raise value_error(f"column {self.column}", row, value, "is binary data, or text that is not UTF-8")
                if value is not None and not isinstance(value, str):
                    self._settle_as(Form.NUMBER)
                    return

    def _settle_as(self, form: Form) -> None:
        """Decides that the column has numbers or dates, and reads the earlier texts as such."""
        column = self.column
        advice = "" if form is Form.DATE else f"; for words use CATEGORY_HASH({column}, 100)"
        if form is Form.NUMBER and self._declared is Declared.OPEN:
            advice = "; CAST it to one type in the select"
        elif form is Form.NUMBER and self._declared is Declared.DATE:
            advice = f"{DATE_ADVICE}, or as numbers, in all rows"
        is_boolean = self._declared is Declared.BOOLEAN
        may_be_codes = self._declared in (Declared.TEXT, Declared.OPEN) and not self._must_be_number
        self._reader = NumberReader(
            f"column {column}", form, self._tally, advice, is_boolean=is_boolean, refuses_codes=may_be_codes
        )
        self._reader.rows, self._reader.nulls = self._rows, self._nulls
        self._store = NumberStore(form is Form.DATE)
        if not self._rows:
            return
        texts, self._texts = self._texts, Texts()
        numbers = self._reader.read_texts((text.row, text.text, text.rows) for text in texts.each())
        rows = texts.rows()
        # The last entry is for NULL.
        values = np.append(numbers.values, 0)
        missing = np.append(numbers.missing, True)
        self._store.add(numbers._replace(values=values[rows], missing=missing[rows]))

    def _settle_texts(self) -> None:
        """Decides the form of the texts. The column stays open if they are words, or if there are none."""
        texts = self._texts
        each = list(texts.each(has_codes=not self._must_be_number))
        rows, different = Counter[Form](), Counter[Form]()
        for text in each:
            if text.form is not Form.MISSING:
                rows[text.form] += text.rows
                different[text.form] += 1
        if not rows:
            texts.forget_missing(self._tally)
            return
        form, most = rows.most_common(1)[0]
        total = rows.total()
        is_one = most == total and not self._must_be_number
        if most == total and form in (Form.NUMBER, Form.DATE):
            self._settle_as(form)
        elif is_one and form is Form.PAIRS:
            self._settle_as_lists(Feature(SPARSE, column=self.column, width=MAX_SPARSE_WIDTH))
        elif is_one and texts.is_full() and texts.forms() <= {Form.PAIR, Form.MISSING}:
            self._pending_error = self._too_many()
            self._settle_as_lists(Feature(SPARSE, column=self.column, width=MAX_SPARSE_WIDTH))
        elif is_one and form is Form.NUMBERS and (width := self._common_width(each)) is not None:
            self._settle_as_lists(Feature(DENSE, column=self.column, width=width, separator=","))
        else:
            for count in (rows, different) if most < total else ():
                nearly, found = count.most_common(1)[0]
                if nearly is not Form.WORDS and found >= NEARLY_ALL * count.total():
                    self._refuse(each, nearly, rows[nearly], total)
            if self._must_be_number:
                self._refuse(each, form, most, total)
            if texts.is_full():
                raise self._too_many()

    def _settle_as_lists(self, feature: Feature) -> None:
        """Decides that the column has lists, and reads the earlier texts as such."""
        self._lists = EncodedFeature(feature, self._tally, checks_precision=True)
        texts, self._texts = self._texts, Texts()
        self._lists.add({self.column: Values(Kind.TEXT, texts.values())})

    def _add_lists(self, lists: EncodedFeature, values: Values) -> None:
        """Adds a batch of lists. Checks their form first, because an encoder alone would accept more."""
        forms = (Form.PAIRS, Form.PAIR) if lists.feature.kind == SPARSE else (Form.NUMBERS,)
        for row, value in enumerate(values.values):
            if value is None:
                continue
            form = form_of(value) if isinstance(value, str) else None
            if form is Form.PAIRS:
                self._pending_error = None
            if form not in (*forms, Form.MISSING):
                what = f"is not a {forms[0].value}, unlike the column's other values{self._advice_for_words()}"
                raise self._pending_error or value_error(f"column {self.column}", self._rows + row + 1, value, what)
        lists.add({self.column: values})

    def _common_width(self, each: list[Text]) -> int | None:
        """Returns the common length of all lists, or None if most have different lengths.

        Raises:
            UserError: nearly all lists have the same length, and one has not.
        """
        lists = [(text, text.text.count(",") + 1) for text in each if text.form is Form.NUMBERS]
        rows = Counter[int]()
        for text, width in lists:
            rows[width] += text.rows
        width, most = rows.most_common(1)[0]
        total = rows.total()
        if most == total:
            return width
        if most < NEARLY_ALL * total:
            return None
        text, found = next((text, found) for text, found in lists if found != width)
        what = f"holds {found} number(s), where {most} of {total} values hold {width}"
        raise value_error(f"column {self.column}", text.row, text.text, what, self._advice_for_words())

    def _refuse(self, each: list[Text], form: Form, most: int, total: int) -> None:
        """Raises the error about the first value without the required form, or without the form of most values."""
        if self._must_be_number and form not in (Form.NUMBER, Form.DATE):
            form = Form.DATE if self._declared is Declared.DATE else Form.NUMBER
            what = f"is not a {form.value}"
        else:
            what = f"is not a {form.value}, as {most} of {total} values are"
        if form is Form.DATE:
            what += DATE_ADVICE
        wrong = next(text for text in each if text.form not in (form, Form.MISSING))
        raise value_error(f"column {self.column}", wrong.row, wrong.text, what, self._advice_for_words())

    def _advice_for_words(self) -> str:
        return f"; exclude such rows, or for words use CATEGORY_HASH({self.column}, 100)"

    def _too_many(self) -> UserError:
        forms, column = self._texts.forms(), self.column
        ways = f"remove it from the select, or use CATEGORY_HASH({column}, {MAX_VOCABULARY})"
        if Form.CODE in forms:
            ways += f", or DENSE({column}) if its numbers with leading zeros are not codes"
        if Form.PAIR in forms:
            ways += f", or SPARSE({column}, size) if it has index:value"
        return UserError(f"column {column} has more than {self._texts.limit()}; {ways}")

    def finish(self) -> LearnedColumn:
        """Decides the column's feature. The collector cannot be used afterwards.

        Raises:
            UserError: a value does not fit the others.
        """
        if self._is_open():
            self._settle_texts()
            if self._is_named and self._reader is None:
                # No row has a value.
                self._settle_as(Form.NUMBER)
        if self._reader is not None and self._store is not None:
            learned = self._finish_numbers(self._reader, self._store)
        elif self._lists is not None:
            learned = self._finish_lists(self._lists)
        else:
            learned = self._finish_words()
        report = learned.report
        missing = self._tally.total()
        if missing:
            report.warn(f"{missing} value(s) taken as missing", "; ".join(self._tally.sentences()))
        if report.missing == self._rows and not self._is_named:
            report.taken_as, report.distinct = "left out", 0
            report.warn("no values", "it has no value in any row, and is omitted")
            return LearnedColumn(None, learned.block, report)
        if report.distinct == 1 and not report.more_distinct and self._rows >= FEW_ROWS:
            report.warn("constant", "it has the same value in every row that has one: a model cannot learn from it")
        return learned

    def _finish_numbers(self, reader: NumberReader, store: NumberStore) -> LearnedColumn:
        fitted = store.fit()
        block, scaling = fitted.block, fitted.scaling
        is_date = reader.form is Form.DATE
        if np.isinf(block).any():
            row = int(np.argmax(np.isinf(block[:, 0]))) + 1
            raise UserError(f"column {self.column}, row {row}: the number {TOO_LARGE}")
        taken_as = "date, in days" if is_date else "number"
        form = Form.DATE.value if is_date else Form.NUMBER.value
        feature = Feature(DENSE, column=self.column, form=form, offset=scaling.offset, scale=scaling.scale)
        # MySQL's BOOLEAN is TINYINT(1), which may have small numbers.
        is_number = reader.not_boolean > 0 and not reader.boolean_words
        feature.boolean = self._declared is Declared.BOOLEAN and not is_number
        report = self._report(taken_as, fitted.distinct, reader.nulls)
        if reader.not_boolean:
            report.warn("not only 0 and 1", "; ".join(self._tally.notes()))
        if fitted.lost:
            report.warn(
                "loses precision",
                f"{fitted.lost} of its {fitted.distinct} different values become equal to others in XGBoost's 32 "
                "bits; select a larger unit or a smaller range",
            )
        elif scaling.offset and not is_date:
            report.taken_as += f", less {scaling.offset}"
        is_named = KEY_NAME.fullmatch(self.column) is not None
        if fitted.is_key and self._rows >= FEW_ROWS and (fitted.is_row_number or is_named):
            report.warn(
                "looks like an id",
                "each row has a different whole number, like an id, and an id says nothing about other rows; "
                "if it is one, remove it from the select or from COLUMN",
            )
        return LearnedColumn(feature, block, report)

    def _finish_lists(self, lists: EncodedFeature) -> LearnedColumn:
        if self._pending_error is not None:
            raise self._pending_error
        feature, block = lists.feature, lists.take()
        if isinstance(block, SparseBlock):
            feature.width = int(block.indices.max(initial=0)) + 1
            feature.drops_unseen = True
            report = self._report(f"sparse, width {feature.width}", None, self._nulls)
        else:
            report = self._report(f"{feature.width} numbers", None, self._nulls)
        for _, check in lists.precision():
            check.warn(report)
        if feature.kind == DENSE and feature.width == 2:
            report.warn(
                "decimal commas?",
                "each text is read as two numbers; if the comma is a decimal comma, REPLACE it by a point",
            )
        return LearnedColumn(feature, block, report)

    def _finish_words(self) -> LearnedColumn:
        feature, block = build_vocabulary(self.column, self._texts)
        count = len(feature.vocabulary or ())
        report = self._report(f"vocabulary of {count}", count, self._nulls)
        if count:
            warn_about_texts(report, self._texts, self._rows - self._nulls)
        return LearnedColumn(feature, block, report)

    def _report(self, taken_as: str, distinct: int | None, nulls: int) -> ColumnReport:
        report = ColumnReport(self.column, self._type, taken_as)
        report.distinct = distinct
        report.missing = nulls + self._tally.total()
        return report
