"""From values to numbers: derivation, encoding, the matrix."""

import math
from typing import Any

import numpy as np
import pytest

from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.derive import derive
from sqlflow_submitter.features.encode import MAX_VOCABULARY, Encoder, SparseBlock
from sqlflow_submitter.features.matrix import MatrixBuilder
from sqlflow_submitter.features.spec import (
    BUCKET,
    CATEGORY_HASH,
    CATEGORY_ID,
    CROSS,
    DENSE,
    INDICATOR,
    SPARSE,
    VOCABULARY,
    Feature,
)

NAN = math.nan


def texts(*values: Any) -> Values:
    return Values(Kind.TEXT, values)


@pytest.mark.parametrize(
    ("values", "kind", "width"),
    [
        (Values(Kind.INT, [1, None]), DENSE, 1),
        (Values(Kind.DECIMAL, ["1.50"]), DENSE, 1),
        (Values(Kind.BOOL, [True]), DENSE, 1),
        (texts("1", "-2.5e3"), DENSE, 1),
        (texts("1,2,3", "4, 5,-6"), DENSE, 3),
        (texts("3:0.5 9:1", "2:1"), SPARSE, 10),
        (texts("1,2", "1,2,3"), VOCABULARY, 1),
        (texts("red", None, "blue"), VOCABULARY, 1),
        (Values(Kind.MIXED, [1, "red"]), VOCABULARY, 1),
    ],
)
def test_derivation(values: Values, kind: str, width: int) -> None:
    feature = derive("x", values)
    assert (feature.kind, feature.width, feature.column) == (kind, width, "x")


@pytest.mark.parametrize("values", [Values(Kind.BLOB, [b"x"]), texts(None, None), Values(Kind.MIXED, [1, b"x"])])
def test_what_cannot_be_a_feature_is_named(values: Values) -> None:
    with pytest.raises(UserError, match="column x"):
        derive("x", values)


def encode(feature: Feature, **columns: Values) -> Any:
    return Encoder(feature, learn=False).encode(columns)


def assert_dense(block: Any, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(block, np.array(expected, dtype=np.float32))


def test_numbers() -> None:
    x = Feature(DENSE, column="x")
    assert_dense(encode(x, x=Values(Kind.INT, [1, None, -3])), [[1], [NAN], [-3]])
    assert_dense(encode(x, x=Values(Kind.DECIMAL, ["1.50", None])), [[1.5], [NAN]])
    assert_dense(encode(x, x=texts("1e2", None, " 3 ")), [[100], [NAN], [3]])
    assert_dense(encode(x, x=Values(Kind.TIMESTAMP, [43_200_000_000])), [[0.5]])


def test_vectors() -> None:
    x = Feature(DENSE, column="x", width=2)
    assert_dense(encode(x, x=texts("1, 2", None, "3 4")), [[1, 2], [NAN, NAN], [3, 4]])


def test_sparse_texts() -> None:
    block = encode(Feature(SPARSE, column="x", width=10), x=texts("3:0.5 9:2", None, "", "1,1,4"))
    assert isinstance(block, SparseBlock)
    assert block.counts.tolist() == [2, 0, 0, 2]
    assert block.indices.tolist() == [3, 9, 1, 4]
    assert block.values.tolist() == [0.5, 2, 2, 1]


def test_buckets() -> None:
    bucket = Feature(BUCKET, inputs=[Feature(DENSE, column="x")], boundaries=[0.0, 10.0])
    values = Values(Kind.FLOAT, [-1.0, 0.0, 9.9, 10.0, None])
    assert_dense(encode(bucket, x=values), [[0], [1], [1], [2], [NAN]])


def test_hashes_are_the_same_everywhere_and_below_the_size() -> None:
    x = Feature(CATEGORY_HASH, column="x", width=1000)
    assert_dense(encode(x, x=texts("Zürich", None)), [[798], [NAN]])
    cross = Feature(CROSS, inputs=[x, Feature(CATEGORY_ID, column="y", width=5)], width=1000)
    block = encode(cross, x=texts("a", "a", "b", None), y=Values(Kind.INT, [1, 1, 1, 1]))
    assert block[0] == block[1] != block[2]
    assert math.isnan(block[3, 0])


@pytest.mark.parametrize(
    ("feature", "value", "message"),
    [
        (Feature(DENSE, column="x"), "abc", "column x, row 2: 'abc' is not a number"),
        (Feature(DENSE, column="x", width=2), "1,2,3", r"row 2: '1,2,3' holds 3 number\(s\), not 2"),
        (Feature(DENSE, column="x", width=2), "1,b", "row 2: '1,b' is no list of numbers"),
        (Feature(SPARSE, column="x", width=5), "5:1", "has the index 5, the size is 5"),
        (Feature(SPARSE, column="x", width=5), "a:1", "is no list of index:value"),
        (Feature(CATEGORY_ID, column="x", width=5), "5", "is no whole number from 0 to 4"),
        (Feature(CATEGORY_ID, column="x", width=5), "1.5", "is no whole number from 0 to 4"),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_its_row(feature: Feature, value: str, message: str) -> None:
    encoder = Encoder(feature, learn=False)
    encoder.encode({"x": texts(None)})
    with pytest.raises(UserError, match=message):
        encoder.encode({"x": texts(value)})


def test_a_vocabulary_is_sorted_whatever_the_order_of_rows() -> None:
    built = []
    for values in (["b", "a", None, "c"], ["c", "b", "a", None]):
        feature = Feature(VOCABULARY, column="x")
        builder = MatrixBuilder([feature], learn=True, one_hot=False)
        builder.add({"x": texts(*values[:2])}, 2)
        builder.add({"x": texts(*values[2:])}, 2)
        matrix = builder.build()
        assert feature.vocabulary == ["a", "b", "c"]
        assert matrix.types == ["c"]
        built.append(matrix.data[:, 0].tolist())
    np.testing.assert_array_equal(built, [[1, 0, NAN, 2], [2, 1, 0, NAN]])


def test_a_text_the_model_has_never_seen_is_missing() -> None:
    feature = Feature(VOCABULARY, column="x", vocabulary=["a", "b"])
    assert_dense(encode(feature, x=texts("b", "z")), [[1], [NAN]])


def test_a_vocabulary_is_bounded() -> None:
    encoder = Encoder(Feature(VOCABULARY, column="x"), learn=True)
    with pytest.raises(UserError, match="CATEGORY_HASH"):
        encoder.encode({"x": texts(*map(str, range(MAX_VOCABULARY + 1)))})


def test_dense_and_sparse_side_by_side() -> None:
    features = [
        Feature(DENSE, column="x"),
        Feature(SPARSE, column="s", width=3),
        Feature(INDICATOR, inputs=[Feature(CATEGORY_ID, column="c", width=2)]),
        Feature(CATEGORY_ID, column="c", width=2),
    ]
    columns = {"x": Values(Kind.INT, [0, None]), "s": texts("2:5", None), "c": Values(Kind.INT, [1, None])}
    builder = MatrixBuilder(features, learn=False, one_hot=False)
    builder.add(columns, 2)
    matrix = builder.build()
    assert matrix.types == ["q"] * 6 + ["c"]
    assert matrix.data.toarray().tolist() == [[0, 0, 0, 5, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]
    # A zero that is there is an entry; what is missing is none.
    assert matrix.data.indptr.tolist() == [0, 4, 4]

    builder = MatrixBuilder(features, learn=False, one_hot=True)
    builder.add(columns, 2)
    assert builder.build().data.toarray().tolist() == [[0, 0, 0, 5, 0, 1, 0, 1], [0] * 8]
