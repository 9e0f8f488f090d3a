"""Finds out from a sample what kind of feature a column is, where no COLUMN clause says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.spec import DENSE, SPARSE, VOCABULARY, Feature

SAMPLE_ROWS = 1000
NUMERIC_KINDS = {
    Kind.BOOL,
    Kind.INT,
    Kind.FLOAT,
    Kind.DECIMAL,
    Kind.DATE,
    Kind.TIMESTAMP,
    Kind.TIMESTAMP_UTC,
}

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NUMBER = re.compile(rf"\s*{_NUMBER}\s*")
NUMBERS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER})+\s*")
PAIRS = re.compile(rf"\s*\d+:{_NUMBER}(?:[\s,]+\d+:{_NUMBER})*\s*")


def derive(column: str, sample: Values) -> Feature:
    """Makes a feature of a column from a sample of its values.

    Numbers, and texts that all are numbers: one number. Texts like `1,2,3`, all as long: a vector. Texts like
    `3:0.5 9:1`: sparse, as wide as the highest index of the sample says. Other texts: a vocabulary.

    Raises:
        UserError: the values can be no feature, as BLOBs, or are all NULL.
    """
    values = [value for value in sample.values if value is not None]
    if not values:
        raise UserError(
            f"column {column} is NULL in the first {len(sample.values)} rows: leave it out, or name its feature column"
        )
    if any(isinstance(value, bytes) for value in values):
        raise UserError(f"column {column} holds binary data, which can be no feature: leave it out")
    texts = [value for value in values if isinstance(value, str)]
    if sample.kind in NUMERIC_KINDS or not texts or all(map(NUMBER.fullmatch, texts)):
        return Feature(DENSE, column=column)
    if len(texts) == len(values):
        if all(map(NUMBERS.fullmatch, texts)):
            widths = {text.count(",") + 1 for text in texts}
            if len(widths) == 1:
                return Feature(DENSE, column=column, width=widths.pop(), separator=",")
        if all(map(PAIRS.fullmatch, texts)):
            return Feature(SPARSE, column=column, width=_sparse_width(texts))
    return Feature(VOCABULARY, column=column)


def _sparse_width(texts: Sequence[str]) -> int:
    return 1 + max(int(index) for text in texts for index in re.findall(r"(\d+):", text))
