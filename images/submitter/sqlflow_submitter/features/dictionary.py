"""The distinct texts of a column of the training data, and the code of each row's text.

Memory: 4 bytes for each row, and at most MAX_VOCABULARY texts or MAX_CHARACTERS, plus the texts of one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.features.numbers import EMPTY, Tally
from sqlflow_submitter.features.texts import Form, form_of

MAX_VOCABULARY = 10_000
MAX_CHARACTERS = 64 * 1024 * 1024

Codes = NDArray[np.int32]


class Text(NamedTuple):
    """A distinct text."""

    text: str
    form: Form
    """Its form, given the other texts."""
    row: int
    """The first row that has it, from 1."""
    rows: int
    """The number of rows that have it."""


class Texts:
    """The texts of a column, as codes into a dictionary."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._forms: list[Form] = []
        self._first_rows: list[int] = []
        self._characters = 0
        self._was_full = False
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
                self._forms.append(form_of(value))
                self._first_rows.append(rows_before + row + 1)
                self._characters += len(value)
            found[row] = code
        self._parts.append(found)

    def is_full(self) -> bool:
        """Returns whether there are more texts than a vocabulary may have."""
        return self._was_full or len(self.codes) > MAX_VOCABULARY or self._characters > MAX_CHARACTERS

    def limit(self) -> str:
        """Returns the limit that a full dictionary exceeds, for messages."""
        if self._characters > MAX_CHARACTERS:
            return f"{MAX_CHARACTERS >> 20} MiB of different texts"
        return f"{MAX_VOCABULARY} different texts"

    def forms(self) -> set[Form]:
        """Returns the forms of the texts, each taken by itself."""
        return set(self._forms)

    def each(self, *, has_codes: bool = True) -> Iterator[Text]:
        """Returns each text with its form, which depends on the other texts.

        A single pair is a word, unless a text has two or more pairs. If a number has leading zeros, all numbers are
        codes, which are words. If `has_codes` is false, numbers with leading zeros are numbers.
        """
        found = self.forms()
        read_as = {Form.PAIR: Form.PAIRS if Form.PAIRS in found else Form.WORDS}
        if not has_codes:
            read_as[Form.CODE] = Form.NUMBER
        elif Form.CODE in found:
            read_as |= {Form.CODE: Form.WORDS, Form.NUMBER: Form.WORDS}
        for text, form, row, rows in zip(self.codes, self._forms, self._first_rows, self._counts(), strict=True):
            yield Text(text, read_as.get(form, form), row, rows)

    def own_forms(self) -> Counter[Form]:
        """Counts the distinct texts by form, each taken by itself."""
        return Counter(self._forms)

    def rows(self) -> Codes:
        """Returns the code of each row, or -1 for a row without a text."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)

    def values(self) -> list[str | None]:
        """Returns the text of each row."""
        texts = [*self.codes, None]
        return [texts[code] for code in self.rows().tolist()]

    def forget_missing(self, tally: Tally) -> None:
        """Counts all texts as missing values, and removes them. A full dictionary stays full."""
        for text in self.each():
            tally.add(EMPTY, text.row, text.text, text.rows)
        self._was_full = self.is_full()
        for part in self._parts:
            part.fill(-1)
        self.codes, self._forms, self._first_rows, self._characters = {}, [], [], 0

    def _counts(self) -> list[int]:
        rows = self.rows()
        return [int(count) for count in np.bincount(rows[rows >= 0], minlength=len(self.codes))]
