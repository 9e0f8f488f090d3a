"""Takes in a column of the training data, and decides what it is once all of its values are known.

What a column is taken for:

- A declared boolean, whole number or number is a number. A date or timestamp is the number of days since 1970.
- Of a text, and of what has no declared type (SQLite's expressions), all values decide. Only numbers: a number. Only
  ISO dates: days. Only lists like `1,2,3`, all as long: a vector. Only texts like `3:0.5 9:1`: sparse, as wide as the
  highest index of all rows says. Else the texts are categories, a *vocabulary*.
- Texts of one pair each, such as `16:9` and `10:30`, are categories like other times and ratios. So are numbers among
  which some have leading zeros: they are codes, of which `01` and `1` are two.
- Where NEARLY_ALL of the rows, or of the different texts, look like numbers, dates or lists, a few that do not make no
  vocabulary of them: an empty text and the like is missing, with a warning; any other value is an error.
- Numbers and words in one column are an error.
- A column that is missing in every row is left out, with a warning.

The order of rows does not matter: the same rows give the same features, or an error. With more different texts than a
vocabulary may have, all must be of one form. So that form is settled when the dictionary is full, and each later text
is held to it. Two cases stay open: texts for missing values only, and single pairs only, which are sparse if any later
row has two or more pairs, and else an error.

Memory: 4 bytes for each number of the matrix, 8 where `store` needs them; 8 for each row of sparse texts, and 12 for
each pair; other texts as `dictionary` says.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.dictionary import MAX_VOCABULARY, Text, Texts
from sqlflow_submitter.features.encode import TOO_LARGE, Block, Columns, SparseBlock
from sqlflow_submitter.features.matrix import EncodedFeature
from sqlflow_submitter.features.numbers import DATE_KINDS, HOW_DATES, NUMERIC_KINDS, NumberReader, Tally, value_error
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.spec import DENSE, SPARSE, Feature
from sqlflow_submitter.features.store import NumberStore
from sqlflow_submitter.features.texts import Form, form_of
from sqlflow_submitter.features.vocabulary import FEW_ROWS, NEARLY_ALL, build_vocabulary, warn_about_texts

MAX_SPARSE_WIDTH = 10_000_000
KEY_NAME = re.compile(r"(.*_)?(row)?(id|uuid|guid|key)|.*Id|.*ID")


class LearnedColumn(NamedTuple):
    """A column, once all is known."""

    feature: Feature | None
    """None: it is left out."""
    block: Block
    report: ColumnReport


class Collector:
    """Takes in one column, batch after batch."""

    def __init__(self, column: str, database_type: str, is_named: bool = False) -> None:
        """Args:
        column: its name.
        database_type: the database's name for its declared type; empty where it has none.
        is_named: the COLUMN clause says DENSE: words are an error, and it is never left out.
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
        """To be raised if no row of a sparse text has two pairs."""
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
        """Finds numbers, dates or binary data among what may be texts so far."""
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
        """Settles that the column holds numbers, or dates, and reads the texts that came before."""
        column = self.column
        advice = "" if form is Form.DATE else f"; for words use CATEGORY_HASH({column}, 100)"
        if form is Form.NUMBER and self._declared is Declared.OPEN:
            advice = "; CAST it to one type in the select"
        elif form is Form.NUMBER and self._declared is Declared.DATE:
            advice = f"{HOW_DATES}, or as numbers, in all rows"
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
        # The last entry stands for NULL.
        values = np.append(numbers.values, 0)
        missing = np.append(numbers.missing, True)
        self._store.add(numbers._replace(values=values[rows], missing=missing[rows]))

    def _settle_texts(self) -> None:
        """Decides what the texts are; leaves the column open where they are words, or there are none."""
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
        """Settles that the column holds lists, and reads those that came before."""
        self._lists = EncodedFeature(feature, self._tally)
        texts, self._texts = self._texts, Texts()
        self._lists.add({self.column: Values(Kind.TEXT, texts.values())})

    def _add_lists(self, lists: EncodedFeature, values: Values) -> None:
        """Adds a batch of lists. An encoder alone would take more for one than what makes a column one of lists."""
        forms = (Form.PAIRS, Form.PAIR) if lists.feature.kind == SPARSE else (Form.NUMBERS,)
        for row, value in enumerate(values.values):
            if value is None:
                continue
            form = form_of(value) if isinstance(value, str) else None
            if form is Form.PAIRS:
                self._pending_error = None
            if form not in (*forms, Form.MISSING):
                what = f"is not a {forms[0].value}, as the column's other values are{self._advice_for_words()}"
                raise self._pending_error or value_error(f"column {self.column}", self._rows + row + 1, value, what)
        lists.add({self.column: values})

    def _common_width(self, each: list[Text]) -> int | None:
        """Gives the length that all lists have; None where most have no common one.

        Raises:
            UserError: nearly all have it.
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
        """Names the first value that keeps the column from being what it is mostly, or must be."""
        if self._must_be_number and form not in (Form.NUMBER, Form.DATE):
            form = Form.DATE if self._declared is Declared.DATE else Form.NUMBER
            what = f"is not a {form.value}"
        else:
            what = f"is not a {form.value}, as {most} of {total} values are"
        if form is Form.DATE:
            what += HOW_DATES
        wrong = next(text for text in each if text.form not in (form, Form.MISSING))
        raise value_error(f"column {self.column}", wrong.row, wrong.text, what, self._advice_for_words())

    def _advice_for_words(self) -> str:
        return f"; leave such rows out, or for words use CATEGORY_HASH({self.column}, 100)"

    def _too_many(self) -> UserError:
        forms, column = self._texts.forms(), self.column
        ways = f"leave it out of the select, or use CATEGORY_HASH({column}, {MAX_VOCABULARY})"
        if Form.CODE in forms:
            ways += f", or DENSE({column}) if its numbers with leading zeros are no codes"
        if Form.PAIR in forms:
            ways += f", or SPARSE({column}, size) if it holds index:value"
        return UserError(f"column {column} holds more than {self._texts.limit()}: {ways}")

    def finish(self) -> LearnedColumn:
        """Decides what the column is; the collector is used up.

        Raises:
            UserError: a value does not fit the others.
        """
        if self._is_open():
            self._settle_texts()
            if self._is_named and self._reader is None:
                # There are no values.
                self._settle_as(Form.NUMBER)
        if self._reader is not None and self._store is not None:
            learned = self._finish_numbers(self._reader, self._store)
        elif self._lists is not None:
            learned = self._finish_lists(self._lists)
        else:
            learned = self._finish_words()
        report = learned.report
        irregular = self._tally.total()
        if irregular:
            report.warn(f"{irregular} value(s) taken as missing", "; ".join(self._tally.sentences()))
        if report.missing == self._rows and not self._is_named:
            report.taken_as, report.distinct = "left out", 0
            report.warn("no values", "it has no value in any row, and is left out")
            return LearnedColumn(None, learned.block, report)
        if report.distinct == 1 and not report.more_distinct and self._rows >= FEW_ROWS:
            report.warn("constant", "it has the same value in every row that has one: nothing can be learned from it")
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
        feature.boolean = self._declared is Declared.BOOLEAN
        report = self._report(taken_as, fitted.distinct, reader.nulls)
        if fitted.lost:
            report.warn(
                "loses precision",
                f"{fitted.lost} of its {fitted.distinct} different values become equal to others in XGBoost's 32 "
                "bits: take a smaller unit or range of them in the select",
            )
        elif scaling.offset and not is_date:
            report.taken_as += f", less {scaling.offset}"
        is_named = KEY_NAME.fullmatch(self.column) is not None
        if fitted.is_key and self._rows >= FEW_ROWS and (fitted.is_row_number or is_named):
            report.warn(
                "looks like an id",
                "each row has a different whole number, like an id: what the model learns from it helps with no other "
                "row; leave it out of the select or of COLUMN if it is one",
            )
        return LearnedColumn(feature, block, report)

    def _finish_lists(self, lists: EncodedFeature) -> LearnedColumn:
        if self._pending_error is not None:
            raise self._pending_error
        feature, block = lists.feature, lists.take()
        if isinstance(block, SparseBlock):
            feature.width = int(block.indices.max(initial=0)) + 1
            feature.drops_unseen = True
            return LearnedColumn(feature, block, self._report(f"sparse, width {feature.width}", None, self._nulls))
        report = self._report(f"{feature.width} numbers", None, self._nulls)
        if feature.width == 2:
            report.warn(
                "decimal commas?",
                "each text is read as two numbers: if the comma is a decimal one, REPLACE it by a point",
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
