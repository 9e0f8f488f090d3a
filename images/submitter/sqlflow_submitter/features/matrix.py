"""Puts the columns of all features side by side, as XGBoost reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlflow_submitter.features.encode import Block, Columns, Encoder, Floats, SparseBlock, one_hot
from sqlflow_submitter.features.spec import CATEGORICAL, Feature


class Matrix:
    """All rows of a select as numbers.

    `data` is a float32 array of (rows, columns), NaN where missing, or a scipy CSR matrix when a feature is sparse.
    """

    def __init__(self, data: Any, types: list[str]) -> None:
        self.data = data
        self.types = types
        """`q` (quantity) or `c` (category) for each column."""

    @property
    def rows(self) -> int:
        return int(self.data.shape[0])


class MatrixBuilder:
    """Takes batches, gives a matrix. Holds every row: about four bytes per cell, and as much again while it builds."""

    def __init__(self, features: Sequence[Feature], learn: bool, one_hot: bool) -> None:
        """Args:
        features: what to encode.
        learn: let vocabularies grow; else what is not in them is missing.
        one_hot: give categories a column each, for models that would read codes as quantities.
        """
        self._features = features
        self._encoders = [Encoder(feature, learn) for feature in features]
        self._blocks: list[list[Block]] = [[] for _ in features]
        self._one_hot = one_hot
        self.rows = 0

    def add(self, columns: Columns, count: int) -> None:
        """Adds a batch of `count` rows, given by column name."""
        for encoder, blocks in zip(self._encoders, self._blocks, strict=True):
            blocks.append(encoder.encode(columns))
        self.rows += count

    def build(self) -> Matrix:
        """Gives the matrix; the builder is used up."""
        parts = []
        for encoder, feature in zip(self._encoders, self._features, strict=True):
            blocks = encoder.finish(self._blocks.pop(0))
            part: Block = _concatenate(blocks, feature)
            if self._one_hot and feature.kind in CATEGORICAL:
                part = one_hot(part)
            parts.append(part)
        types = column_types(self._features, self._one_hot)
        dense = [part for part in parts if isinstance(part, np.ndarray)]
        if len(dense) == len(parts):
            return Matrix(np.hstack(dense), types)
        import scipy.sparse

        widths = [matrix_width(feature, self._one_hot) for feature in self._features]
        sparse = [_csr(part, width) for part, width in zip(parts, widths, strict=True)]
        return Matrix(scipy.sparse.hstack(sparse, format="csr", dtype=np.float32), types)


def matrix_width(feature: Feature, one_hot: bool) -> int:
    """Gives the number of columns that a feature takes."""
    return feature.codes() if one_hot and feature.kind in CATEGORICAL else feature.matrix_width()


def column_types(features: Sequence[Feature], one_hot: bool) -> list[str]:
    """Gives XGBoost's type of each column."""
    types: list[str] = []
    for feature in features:
        kind = "c" if feature.kind in CATEGORICAL and not one_hot else "q"
        types += [kind] * matrix_width(feature, one_hot)
    return types


def _concatenate(blocks: list[Block], feature: Feature) -> Block:
    if blocks and isinstance(blocks[0], SparseBlock):
        sparse = [block for block in blocks if isinstance(block, SparseBlock)]
        return SparseBlock(
            np.concatenate([block.counts for block in sparse]),
            np.concatenate([block.indices for block in sparse]),
            np.concatenate([block.values for block in sparse]),
        )
    dense: list[Floats] = [block for block in blocks if isinstance(block, np.ndarray)]
    return np.concatenate(dense) if dense else np.empty((0, feature.matrix_width()), dtype=np.float32)


def _csr(block: Block, width: int) -> Any:
    import scipy.sparse

    if isinstance(block, np.ndarray):
        # A zero is a value, NaN is none: to XGBoost an absent entry is a missing one.
        known = ~np.isnan(block)
        counts, indices, values = known.sum(axis=1), np.nonzero(known)[1], block[known]
    else:
        counts, indices, values = block.counts, block.indices, block.values
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return scipy.sparse.csr_matrix((values, indices, offsets), shape=(len(counts), width))
