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

Memory: 4 bytes for each number of the matrix, 8 where `store` needs them; texts have a code of 4 bytes a row, and a
dictionary of at most MAX_VOCABULARY texts and MAX_CHARACTERS; beyond, they must be numbers, dates or lists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.declared import Declared, declared
from sqlflow_submitter.features.encode import TOO_LARGE, Block, Columns, Encoder, SparseBlock
from sqlflow_submitter.features.numbers import DATE_KINDS, EMPTY, NUMERIC_KINDS, NumberReader, Tally, error
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.spec import DENSE, SPARSE, VOCABULARY, Feature
from sqlflow_submitter.features.store import NumberStore
from sqlflow_submitter.features.texts import OTHER_DATE, TIME, Form, form_of

MAX_VOCABULARY = 10_000
MAX_CHARACTERS = 64 * 1024 * 1024
MAX_SPARSE_WIDTH = 10_000_000
NEARLY_ALL = 0.9
FEW_ROWS = 10
"""Below it, nothing is said of keys and nearly unique texts: most columns of few rows are that."""
KEY_NAME = re.compile(r"(.*_)?(row)?(id|uuid|guid|key)|.*Id|.*ID")

Codes = NDArray[np.int32]


class Learned(NamedTuple):
    """A column, once all is known."""

    feature: Feature | None
    """None: it is left out."""
    block: Block
    report: ColumnReport


class Texts:
    """The texts of a column as codes into a dictionary."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.first_rows: list[int] = []
        self.characters = 0
        self._parts: list[Codes] = []

    def add(self, values: Sequence[str | None], rows_before: int) -> None:
        codes = self.codes
        found = np.empty(len(values), dtype=np.int32)
        for row, value in enumerate(values):
            if value is None:
                found[row] = -1
                continue
            code = codes.get(value)
            if code is None:
                code = codes[value] = len(codes)
                self.first_rows.append(rows_before + row + 1)
                self.characters += len(value)
            found[row] = code
        self._parts.append(found)

    def is_full(self) -> bool:
        return len(self.codes) > MAX_VOCABULARY or self.characters > MAX_CHARACTERS

    def rows(self) -> Codes:
        """Gives the code of each row, -1 for NULL."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)

    def counts(self) -> list[int]:
        """Gives how many rows each text has."""
        rows = self.rows()
        return [int(count) for count in np.bincount(rows[rows >= 0], minlength=len(self.codes))]


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
        self._read_as: dict[Form, Form] = {}
        self._reader: NumberReader | None = None
        self._store: NumberStore | None = None
        self._lists: Encoder | None = None
        self._list_blocks: list[Block] = []
        if self._declared in (Declared.BOOLEAN, Declared.INTEGER, Declared.DECIMAL, Declared.NUMBER):
            self._become(Form.NUMBER)

    def add(self, columns: Columns) -> None:
        """Adds a batch, given by column name."""
        values = columns[self.column]
        if self._reader is None and self._lists is None:
            self._look(values)
        if self._reader is not None and self._store is not None:
            self._store.add(self._reader.read(values))
        elif self._lists is not None:
            self._list_blocks.append(self._lists.encode({self.column: self._without_missing(values)}))
        else:
            self._nulls += values.values.count(None)
            self._texts.add(values.values, self._rows)
        self._rows += len(values.values)
        if self._reader is None and self._lists is None and self._texts.is_full():
            self._settle_texts()

    def _look(self, values: Values) -> None:
        """Finds numbers, dates or binary data among what may be texts so far."""
        if values.kind in DATE_KINDS:
            self._become(Form.DATE)
        elif values.kind in NUMERIC_KINDS:
            self._become(Form.NUMBER)
        elif values.kind is not Kind.TEXT:
            for row, value in enumerate(values.values):
                if isinstance(value, bytes):
                    row += self._rows + 1
                    raise error(f"column {self.column}", row, value, "is binary data, or text that is not UTF-8")
                if value is not None and not isinstance(value, str):
                    self._become(Form.NUMBER)
                    return

    def _become(self, form: Form) -> None:
        """Settles that the column holds numbers, or dates, and reads the texts that came before."""
        column = self.column
        advice = ""
        if form is Form.NUMBER:
            advice = (
                "; CAST it to one type in the select"
                if self._declared is Declared.OPEN
                else f"; for words use CATEGORY_HASH({column}, 100)"
            )
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
        numbers = self._reader.read_texts(list(texts.codes), texts.first_rows, texts.counts())
        rows = texts.rows()
        # The last entry stands for NULL.
        values = np.append(numbers.values, 0)
        missing = np.append(numbers.missing, True)
        self._store.add(numbers._replace(values=values[rows], missing=missing[rows]))

    def _without_missing(self, values: Values) -> Values:
        found = []
        for row, value in enumerate(values.values):
            if isinstance(value, str) and form_of(value) is Form.MISSING:
                self._tally.add(EMPTY, self._rows + row + 1, value)
                value = None
            self._nulls += value is None
            found.append(value)
        return Values(values.kind, found)

    def _settle_texts(self) -> None:
        """Decides what the texts are; leaves `_reader` and `_lists` empty where they are words, or there are none."""
        texts = self._texts
        rows, texts_of = Counter[Form](), Counter[Form]()
        first: dict[Form, int] = {}
        found = [form_of(text) for text in texts.codes]
        self._read_as = self._readings(set(found))
        for code, (form, count) in enumerate(zip(found, texts.counts(), strict=True)):
            form = self._read_as.get(form, form)
            rows[form] += count
            texts_of[form] += 1
            first.setdefault(form, code)
        total = sum(rows.values()) - rows[Form.MISSING]
        if not total:
            return
        form, most = max(((form, rows[form]) for form in first if form is not Form.MISSING), key=lambda it: it[1])
        if most == total and form is not Form.WORDS and self._become_what_all_are(form):
            return
        if most == total and form in (Form.NUMBERS, Form.PAIRS) and not self._must_be_number:
            self._check_vocabulary()
            return
        different, all_different = texts_of[form], sum(texts_of.values()) - texts_of[Form.MISSING]
        looks_so = most >= NEARLY_ALL * total or different >= NEARLY_ALL * all_different
        is_nearly = form is not Form.WORDS and most < total and looks_so
        if self._must_be_number or is_nearly:
            self._refuse(form, most, total)
        self._check_vocabulary()

    def _readings(self, found: set[Form]) -> dict[Form, Form]:
        """Says what codes and single pairs count as, which hangs on what else there is."""
        readings = {Form.PAIR: Form.PAIRS if Form.PAIRS in found else Form.WORDS}
        if self._must_be_number:
            readings[Form.CODE] = Form.NUMBER
        elif Form.CODE in found:
            readings |= {Form.CODE: Form.WORDS, Form.NUMBER: Form.WORDS}
        return readings

    def _become_what_all_are(self, form: Form) -> bool:
        """Goes on as numbers, dates or lists; False where lists differ in length."""
        if form in (Form.NUMBER, Form.DATE):
            self._become(form)
            return True
        if self._must_be_number:
            return False
        texts = list(self._texts.codes)
        if form is Form.NUMBERS:
            width = self._common_width()
            if width is None:
                return False
            feature = Feature(DENSE, column=self.column, width=width, separator=",")
        else:
            feature = Feature(SPARSE, column=self.column, width=MAX_SPARSE_WIDTH)
        self._lists = Encoder(feature)
        rows = self._texts.rows()
        values = [None if code < 0 else texts[code] for code in rows.tolist()]
        self._texts = Texts()
        after, self._rows, self._nulls = self._rows, 0, 0
        self._list_blocks.append(self._lists.encode({self.column: self._without_missing(Values(Kind.TEXT, values))}))
        self._rows = after
        return True

    def _common_width(self) -> int | None:
        """Gives the length that all lists have; None where most have no common one.

        Raises:
            UserError: nearly all have it.
        """
        widths = [text.count(",") + 1 if form_of(text) is Form.NUMBERS else 0 for text in self._texts.codes]
        rows = Counter[int]()
        for width, count in zip(widths, self._texts.counts(), strict=True):
            rows[width] += count
        del rows[0]
        width, most = rows.most_common(1)[0]
        total = sum(rows.values())
        if most == total:
            return width
        if most < NEARLY_ALL * total:
            return None
        texts = zip(self._texts.codes, self._texts.first_rows, widths, strict=True)
        text, row, found = next((text, row, found) for text, row, found in texts if found not in (0, width))
        what = f"holds {found} number(s), where {most} of {total} values hold {width}"
        advice = f"; leave such rows out, or for words use CATEGORY_HASH({self.column}, 100)"
        raise error(f"column {self.column}", row, text, what, advice)

    def _refuse(self, form: Form, most: int, total: int) -> None:
        """Names the first value that keeps the column from being what it is mostly, or must be."""
        if self._must_be_number and form not in (Form.NUMBER, Form.DATE):
            form, what = Form.NUMBER, "is not a number"
        else:
            what = f"is not a {form.value}, as {most} of {total} values are"
        texts = zip(self._texts.codes, self._texts.first_rows, strict=True)
        text, row = next((text, row) for text, row in texts if self._form_of(text) not in (form, Form.MISSING))
        advice = f"; leave such rows out, or for words use CATEGORY_HASH({self.column}, 100)"
        raise error(f"column {self.column}", row, text, what, advice)

    def _form_of(self, text: str) -> Form:
        form = form_of(text)
        return self._read_as.get(form, form)

    def _check_vocabulary(self) -> None:
        if self._texts.is_full():
            what = (
                f"{MAX_VOCABULARY} different texts"
                if len(self._texts.codes) > MAX_VOCABULARY
                else f"{MAX_CHARACTERS >> 20} MiB of different texts"
            )
            raise UserError(
                f"column {self.column} holds more than {what}: "
                f"leave it out of the select, or use CATEGORY_HASH({self.column}, {MAX_VOCABULARY}){self._other_ways()}"
            )

    def _other_ways(self) -> str:
        forms = {form_of(text) for text in self._texts.codes}
        ways = f", or DENSE({self.column}) if its numbers with leading zeros are no codes" if Form.CODE in forms else ""
        return ways + (f", or SPARSE({self.column}, size) if it holds index:value" if Form.PAIR in forms else "")

    def finish(self) -> Learned:
        """Decides what the column is; the collector is used up.

        Raises:
            UserError: a value does not fit the others.
        """
        if self._reader is None and self._lists is None:
            self._settle_texts()
            if self._is_named and self._reader is None:
                # There are no values.
                self._become(Form.NUMBER)
        if self._store is not None:
            learned = self._finish_numbers(self._store)
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
            return Learned(None, learned.block, report)
        if report.distinct == 1 and not report.more_distinct and self._rows >= FEW_ROWS:
            report.warn("constant", "it has the same value in every row that has one: nothing can be learned from it")
        return learned

    def _finish_numbers(self, store: NumberStore) -> Learned:
        assert self._reader is not None, "numbers have a reader"
        settled = store.settle()
        block, recipe = settled.block, settled.recipe
        is_date = self._reader.form is Form.DATE
        if np.isinf(block).any():
            row = int(np.argmax(np.isinf(block[:, 0]))) + 1
            raise UserError(f"column {self.column}, row {row}: the number {TOO_LARGE}")
        taken_as = "date, in days" if is_date else "number"
        form = Form.DATE.value if is_date else Form.NUMBER.value
        feature = Feature(DENSE, column=self.column, form=form, offset=recipe.offset, scale=recipe.scale)
        feature.boolean = self._declared is Declared.BOOLEAN
        report = self._report(taken_as, settled.distinct)
        report.missing = self._reader.nulls + self._tally.total()
        if settled.lost:
            report.warn(
                "loses precision",
                f"{settled.lost} of its {settled.distinct} different values become equal to others in XGBoost's 32 "
                "bits: take a smaller unit or range of them in the select",
            )
        elif recipe.offset and not is_date:
            report.taken_as += f", less {recipe.offset}"
        is_named = KEY_NAME.fullmatch(self.column) is not None
        if settled.is_key and self._rows >= FEW_ROWS and (settled.is_row_number or is_named):
            report.warn(
                "looks like an id",
                "each row has a different whole number, like an id: what the model learns from it helps with no other "
                "row; leave it out of the select or of COLUMN if it is one",
            )
        return Learned(feature, block, report)

    def _finish_lists(self, encoder: Encoder) -> Learned:
        feature = encoder.feature
        blocks, self._list_blocks = self._list_blocks, []
        block: Block
        if feature.kind == SPARSE:
            sparse = [block for block in blocks if isinstance(block, SparseBlock)]
            indices = np.concatenate([block.indices for block in sparse])
            feature.width = int(indices.max(initial=0)) + 1
            feature.drops_unseen = True
            block = SparseBlock(
                np.concatenate([block.counts for block in sparse]),
                indices,
                np.concatenate([block.values for block in sparse]),
            )
            report = self._report(f"sparse, width {feature.width}", None)
        else:
            block = np.concatenate([block for block in blocks if isinstance(block, np.ndarray)])
            report = self._report(f"{feature.width} numbers", None)
            if feature.width == 2:
                report.warn(
                    "decimal commas?",
                    "each text is read as two numbers: if the comma is a decimal one, REPLACE it by a point",
                )
        report.missing = self._nulls
        return Learned(feature, block, report)

    def _finish_words(self) -> Learned:
        texts = self._texts
        vocabulary = sorted(texts.codes)
        places = {text: place for place, text in enumerate(vocabulary)}
        # The last entry stands for NULL.
        final = np.array([places[text] for text in texts.codes] + [np.nan], dtype=np.float32)
        block = final[texts.rows()].reshape(-1, 1)
        report = self._report(f"vocabulary of {len(vocabulary)}", len(vocabulary))
        report.missing = self._nulls
        if all(form_of(text) is Form.MISSING for text in vocabulary):
            if vocabulary:
                counts = texts.counts()
                for text, row, count in zip(texts.codes, texts.first_rows, counts, strict=True):
                    self._tally.add(EMPTY, row, text, count)
                report.missing += sum(counts)
            return Learned(Feature(VOCABULARY, column=self.column, vocabulary=[]), block, report)
        known = self._rows - self._nulls
        if known >= FEW_ROWS and 2 * len(vocabulary) > known:
            report.warn(
                "nearly unique",
                f"{len(vocabulary)} different texts in {known} rows: most say nothing about other rows; "
                "leave it out of the select or of COLUMN if it is a name or an id",
            )
        dates = sum(OTHER_DATE.fullmatch(text) is not None for text in vocabulary)
        if dates >= NEARLY_ALL * len(vocabulary):
            report.warn(
                "not ISO dates",
                "its texts look like dates, but are categories as they are: write them as 2024-12-31 in the select",
            )
        forms = Counter(form_of(text) for text in vocabulary)
        codes = forms[Form.CODE]
        if codes:
            report.warn(
                "leading zeros",
                f"{codes} of its {len(vocabulary)} different texts are numbers with leading zeros: all are taken as "
                f"categories, as codes are; for numbers use DENSE({self.column})",
            )
        if sum(TIME.fullmatch(text) is not None for text in vocabulary) >= NEARLY_ALL * len(vocabulary):
            report.warn(
                "times of a day",
                "its texts look like times, and are categories as they are: for numbers, compute seconds in the select",
            )
        others = (Form.WORDS, Form.PAIR, Form.CODE, *((Form.NUMBER,) if codes else ()))
        numbers = sum(count for form, count in forms.items() if form not in others)
        if numbers:
            report.warn(
                "not only words",
                f"{numbers} of its {len(vocabulary)} different texts are numbers, dates, lists or words for a missing "
                "value, and are taken as categories like the others",
            )
        return Learned(Feature(VOCABULARY, column=self.column, vocabulary=vocabulary), block, report)

    def _report(self, taken_as: str, distinct: int | None) -> ColumnReport:
        report = ColumnReport(self.column, self._type, taken_as)
        report.distinct = distinct
        return report
