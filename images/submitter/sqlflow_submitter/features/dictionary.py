"""The different texts of a column of the training data, and the code of each row's text.

Memory: 4 bytes a row, and at most MAX_VOCABULARY texts or MAX_CHARACTERS, and those of one batch more.
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
    """One of the texts."""

    text: str
    form: Form
    """What it counts as among the others."""
    row: int
    """The first that has it, from 1."""
    rows: int
    """So many have it."""


class Texts:
    """The texts of a column as codes into a dictionary."""

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
        """Whether there are more texts than a vocabulary may have."""
        return self._was_full or len(self.codes) > MAX_VOCABULARY or self._characters > MAX_CHARACTERS

    def limit(self) -> str:
        """Names the limit that a full one has passed."""
        if self._characters > MAX_CHARACTERS:
            return f"{MAX_CHARACTERS >> 20} MiB of different texts"
        return f"{MAX_VOCABULARY} different texts"

    def forms(self) -> set[Form]:
        """Gives what the texts look like by themselves."""
        return set(self._forms)

    def each(self, *, has_codes: bool = True) -> Iterator[Text]:
        """Gives each text, with what it counts as, which depends on what else there is.

        Single pairs are words unless some text has two or more. Where some numbers have leading zeros, all numbers are
        codes, which are words; not so where `has_codes` is false.
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
        """Counts the different texts by what each looks like by itself."""
        return Counter(self._forms)

    def rows(self) -> Codes:
        """Gives the code of each row, -1 where it has no text."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)

    def values(self) -> list[str | None]:
        """Gives the text of each row."""
        texts = [*self.codes, None]
        return [texts[code] for code in self.rows().tolist()]

    def forget_missing(self, tally: Tally) -> None:
        """Counts all texts as missing values, and forgets them. A vocabulary that was too large stays so."""
        for text in self.each():
            tally.add(EMPTY, text.row, text.text, text.rows)
        self._was_full = self.is_full()
        for part in self._parts:
            part.fill(-1)
        self.codes, self._forms, self._first_rows, self._characters = {}, [], [], 0

    def _counts(self) -> list[int]:
        rows = self.rows()
        return [int(count) for count in np.bincount(rows[rows >= 0], minlength=len(self.codes))]
