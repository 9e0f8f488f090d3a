"""Joins the columns of all features to a matrix for XGBoost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlflow_submitter.features.encode import Block, Columns, Encoder, SparseBlock, one_hot
from sqlflow_submitter.features.numbers import Tally
from sqlflow_submitter.features.precision import PrecisionCheck
from sqlflow_submitter.features.spec import CATEGORICAL, Feature


class Matrix:
    """Rows as numbers.

    `data` is a float32 array of (rows, columns) with NaN for missing values, or a scipy CSR matrix if a feature is
    sparse. The values of an array's column are contiguous in memory.
    """

    def __init__(self, data: Any, types: list[str]) -> None:
        self.data = data
        self.types = types
        """The type of each column: `q` (quantity) or `c` (category)."""

    @property
    def rows(self) -> int:
        return int(self.data.shape[0])


class EncodedFeature:
    """Encodes one fixed feature, batch by batch, and keeps the blocks."""

    def __init__(self, feature: Feature, tally: Tally | None = None, *, checks_precision: bool = False) -> None:
        self.feature = feature
        self._encoder = Encoder(feature, tally, checks_precision=checks_precision)
        self._blocks: list[Block] = []

    def add(self, columns: Columns) -> None:
        self._blocks.append(self._encoder.encode(columns))

    def take(self) -> Block:
        """Returns the rows that were added since the last call."""
        blocks, self._blocks = self._blocks, []
        return _concatenate(blocks, self.feature)

    def tallies(self) -> list[Tally]:
        return self._encoder.tallies()

    def precision(self) -> list[tuple[str, PrecisionCheck]]:
        return self._encoder.precision()


class FixedFeatures:
    """Encodes batches as matrices, by fixed features such as those of a trained model."""

    def __init__(self, features: Sequence[Feature], one_hot: bool) -> None:
        """Args:
        features: the features.
        one_hot: whether each category gets a column, for models that read codes as quantities.
        """
        self.features = list(features)
        self._sources = [EncodedFeature(feature) for feature in features]
        self._one_hot = one_hot

    def add(self, columns: Columns) -> None:
        """Adds a batch, given by column name."""
        for source in self._sources:
            source.add(columns)

    def build(self) -> Matrix:
        """Returns the matrix of the rows that were added since the last call."""
        return assemble(self.features, [source.take() for source in self._sources], self._one_hot)

    def warnings(self) -> list[str]:
        """Returns a warning for each column with values that were read as missing."""
        tallies = [tally for source in self._sources for tally in source.tallies()]
        found = [f"column {tally.column}: {text}" for tally in tallies for text in (*tally.sentences(), *tally.notes())]
        # Without duplicates: several features may read the same column.
        return list(dict.fromkeys(found))


def assemble(features: Sequence[Feature], blocks: list[Block], one_hot_codes: bool) -> Matrix:
    """Joins blocks. Empties the list one by one, so that memory is bounded by eight bytes for each number."""
    types = column_types(features, one_hot_codes)
    is_expanded = [one_hot_codes and feature.kind in CATEGORICAL for feature in features]
    dense = [block for block in blocks if isinstance(block, np.ndarray)]
    if not any(is_expanded) and len(dense) == len(blocks):
        blocks.clear()
        data = np.empty((len(dense[0]), len(types)), dtype=np.float32, order="F")
        end = len(types)
        while dense:
            block = dense.pop()
            data[:, end - block.shape[1] : end] = block
            end -= block.shape[1]
        return Matrix(data, types)
    del dense
    import scipy.sparse

    widths = [matrix_width(feature, one_hot_codes) for feature in features]
    parts = []
    for expand, width in zip(is_expanded, widths, strict=True):
        part = blocks.pop(0)
        parts.append(_csr(one_hot(part) if expand else part, width))
    return Matrix(scipy.sparse.hstack(parts, format="csr", dtype=np.float32), types)


def matrix_width(feature: Feature, one_hot: bool) -> int:
    """Returns the number of columns of a feature in the matrix."""
    return feature.codes() if one_hot and feature.kind in CATEGORICAL else feature.matrix_width()


def column_types(features: Sequence[Feature], one_hot: bool) -> list[str]:
    """Returns XGBoost's type of each column."""
    types: list[str] = []
    for feature in features:
        kind = "c" if feature.kind in CATEGORICAL and not one_hot else "q"
        types += [kind] * matrix_width(feature, one_hot)
    return types


def _concatenate(blocks: list[Block], feature: Feature) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    if blocks and isinstance(blocks[0], SparseBlock):
        sparse = [block for block in blocks if isinstance(block, SparseBlock)]
        return SparseBlock(
            np.concatenate([block.counts for block in sparse]),
            np.concatenate([block.indices for block in sparse]),
            np.concatenate([block.values for block in sparse]),
        )
    dense = [block for block in blocks if isinstance(block, np.ndarray)]
    return np.concatenate(dense) if dense else np.empty((0, feature.matrix_width()), dtype=np.float32)


def _csr(block: Block, width: int) -> Any:
    import scipy.sparse

    if isinstance(block, np.ndarray):
        # Zeros are entries and NaNs are not: XGBoost treats an absent entry as missing.
        known = ~np.isnan(block)
        counts, indices, values = known.sum(axis=1), np.nonzero(known)[1], block[known]
    else:
        counts, indices, values = block.counts, block.indices, block.values
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return scipy.sparse.csr_matrix((values, indices, offsets), shape=(len(counts), width))
