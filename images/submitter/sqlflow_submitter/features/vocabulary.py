"""Creates the vocabulary of a column's texts, and warns about texts that may not be categories."""

from __future__ import annotations

import numpy as np

from sqlflow_submitter.features.dictionary import Texts
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.spec import VOCABULARY, Feature
from sqlflow_submitter.features.store import Floats
from sqlflow_submitter.features.texts import OTHER_DATE, TIME, Form

NEARLY_ALL = 0.9
FEW_ROWS = 10
"""Minimum number of rows for warnings about keys and nearly unique texts: with few rows, most columns have them."""


def build_vocabulary(column: str, texts: Texts) -> tuple[Feature, Floats]:
    """Returns the feature and the code of each row."""
    vocabulary = sorted(texts.codes)
    places = {text: place for place, text in enumerate(vocabulary)}
    # The last entry is for NULL.
    final = np.array([places[text] for text in texts.codes] + [np.nan], dtype=np.float32)
    return Feature(VOCABULARY, column=column, vocabulary=vocabulary), final[texts.rows()].reshape(-1, 1)


def warn_about_texts(report: ColumnReport, texts: Texts, known: int) -> None:
    """Adds warnings about texts that may not be categories. `known`: number of rows that have a text."""
    count = len(texts.codes)
    if known >= FEW_ROWS and 2 * count > known:
        report.warn(
            "nearly unique",
            f"{count} different texts in {known} rows: most say nothing about other rows; "
            "if it is a name or an id, remove it from the select or from COLUMN",
        )
    if sum(OTHER_DATE.fullmatch(text) is not None for text in texts.codes) >= NEARLY_ALL * count:
        report.warn(
            "not ISO dates",
            "its texts look like dates, but are read as categories; write them as 2024-12-31 in the select",
        )
    forms = texts.own_forms()
    codes = forms[Form.CODE]
    if codes:
        report.warn(
            "leading zeros",
            f"{codes} of its {count} different texts are numbers with leading zeros, so all are taken as "
            f"categories; for numbers use DENSE({report.name})",
        )
    if sum(TIME.fullmatch(text) is not None for text in texts.codes) >= NEARLY_ALL * count:
        report.warn(
            "times of a day",
            "its texts look like times, and are taken as categories; for numbers, compute seconds in the select",
        )
    others = (Form.WORDS, Form.PAIR, Form.CODE, *((Form.NUMBER,) if codes else ()))
    numbers = sum(found for form, found in forms.items() if form not in others)
    if numbers:
        report.warn(
            "not only words",
            f"{numbers} of its {count} different texts are numbers, dates, lists or words for a missing "
            "value, and are taken as categories like the others",
        )
