"""Derivation and encoding of features, and the matrix."""

import math
from typing import Any

import numpy as np
import pytest

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.collect import Collector, LearnedColumn
from sqlflow_submitter.features.dictionary import MAX_VOCABULARY
from sqlflow_submitter.features.encode import Encoder, SparseBlock, text_of
from sqlflow_submitter.features.learn import Learner
from sqlflow_submitter.features.matrix import FixedFeatures
from sqlflow_submitter.features.numbers import Numbers
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
from sqlflow_submitter.features.store import NumberStore
from sqlflow_submitter.values import Kind, Values

NAN = math.nan


def texts(*values: Any) -> Values:
    return Values(Kind.TEXT, values)


def collected(*batches: Values, database_type: str = "") -> LearnedColumn:
    collector = Collector("x", database_type)
    for batch in batches:
        collector.add({"x": batch})
    return collector.finish()


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
        (Values(Kind.MIXED, [1, "2.5", ""]), DENSE, 1),
    ],
)
def test_values_decide_the_feature(values: Values, kind: str, width: int) -> None:
    feature = collected(values).feature
    assert feature is not None
    assert (feature.kind, feature.width, feature.column) == (kind, width, "x")


@pytest.mark.parametrize(
    "values", [Values(Kind.BLOB, [b"x"]), Values(Kind.MIXED, [1, b"x"]), Values(Kind.MIXED, [1, "red"])]
)
def test_values_that_cannot_be_a_feature_are_an_error(values: Values) -> None:
    with pytest.raises(UserError, match="column x, row"):
        collected(values)


def test_numbers_and_words_in_one_column_are_an_error_in_any_order() -> None:
    for order in ([Values(Kind.INT, [1]), texts("red")], [texts("red"), Values(Kind.INT, [1])]):
        with pytest.raises(UserError, match=r"column x, row [12]: 'red' is not a number"):
            collected(*order)


def whole(*values: int) -> Values:
    return Values(Kind.INT, list(values))


@pytest.mark.parametrize(
    ("batches", "offset", "expected"),
    [
        ([whole(5, 3)], 0, [5, 3]),
        ([whole(20180111, 20180112), whole(20180113, 7)], 20180112, [-1, 0, 1, -20180105]),
        ([Values(Kind.FLOAT, [20180111.0, None, 20180113.0])], 20180113, [-2, NAN, 0]),
        ([whole(2**62 + 1, 2**62 + 3), whole(2**62 + 2)], 2**62 + 2, [-1, 1, 0]),
        # No offset is needed: the values also differ in 32 bits.
        ([Values(Kind.FLOAT, [11.03, 11.84])], 0, [11.03, 11.84]),
        ([Values(Kind.FLOAT, [5e6 + 0.125, 5e6 + 0.25, 5e6 + 0.375])], 5e6 + 0.25, [-0.125, 0, 0.125]),
        # Two timestamps of one day.
        ([Values(Kind.TIMESTAMP, [86_400_000_000, 86_400_000_000 + 21_600_000_000])], 86_400_000_000, [0, 0.25]),
        ([Values(Kind.DATE, [3]), Values(Kind.TIMESTAMP, [86_400_000_000])], 0, [3, 1]),
    ],
)
def test_numbers_that_do_not_fit_32_bits_get_an_offset(
    batches: list[Values], offset: float, expected: list[float]
) -> None:
    learned = collected(*batches)
    assert learned.feature is not None
    assert learned.feature.offset == offset
    np.testing.assert_array_equal(learned.block, np.array([expected], dtype=np.float32).T)  # type: ignore[arg-type]
    # A model encodes later values in the same way.
    again = Encoder(Feature.from_json(learned.feature.to_json()))
    blocks = [again.encode({"x": batch}) for batch in batches]
    np.testing.assert_array_equal(np.concatenate(blocks), learned.block)  # type: ignore[arg-type]


def test_common_divisor_of_numbers_becomes_the_scale() -> None:
    values = [k * 1_000_003 for k in range(-5, 6)] + [2**40 * 1_000_003 + k * 1_000_003 for k in range(3)]
    learned = collected(whole(*reversed(values)))
    assert learned.report.warnings == ["loses precision"]
    values = [10**9 + k * 1_000_003 for k in range(0, 40_000, 7)]
    learned = collected(whole(*values))
    assert learned.report.warnings == []
    assert len(np.unique(learned.block)) == len(values)  # type: ignore[arg-type]


def test_numbers_that_fit_32_bits_are_stored_in_32_bits() -> None:
    store = NumberStore(is_date=False)
    for numbers in (np.arange(4096) / 8, np.arange(4096)):
        store.add(Numbers(numbers, np.zeros(4096, dtype=np.bool_)))
    assert [batch.dtype for batch in store._batches] == [np.float32, np.float32]  # type: ignore[union-attr]


def test_dense_fractions_are_unchanged() -> None:
    random = np.random.default_rng(1).random(200_000)
    learned = collected(Values(Kind.FLOAT, random.tolist()))
    np.testing.assert_array_equal(learned.block[:, 0], random.astype(np.float32))  # type: ignore[index]
    assert learned.report.warnings == []


def test_many_different_texts_that_are_numbers_need_no_dictionary() -> None:
    many = [str(k / 7) for k in range(MAX_VOCABULARY + 5)]
    learned = collected(texts(*many), texts("", None, "12"))
    assert learned.feature is not None
    assert learned.feature.form == "number"
    assert learned.report.missing == 2
    with pytest.raises(UserError, match="column x, row 10006: 'twelve' is not a number"):
        collected(texts(*many), texts("twelve"))
    with pytest.raises(UserError, match=r"column x, row 10006: '01' has leading zeros like a code"):
        collected(texts(*many), texts("01"))
    with pytest.raises(UserError, match=r"column x has more than 10000 different .*, or DENSE"):
        collected(texts("01"), texts(*many))
    pairs = [f"{k}:1" for k in range(MAX_VOCABULARY + 5)]
    with pytest.raises(UserError, match=r"^column x has more than 10000 different .*, or SPARSE\(x, size\) if"):
        collected(texts(*pairs))
    pairs[0] += " 1:1"
    learned = collected(texts(*pairs), texts("77777:2"))
    assert learned.feature is not None
    assert learned.feature.width == 77778


def encode(feature: Feature, **columns: Values) -> Any:
    return Encoder(feature).encode(columns)


def assert_dense(block: Any, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(block, np.array(expected, dtype=np.float32))


def test_numbers_are_encoded() -> None:
    x = Feature(DENSE, column="x")
    assert_dense(encode(x, x=Values(Kind.INT, [1, None, -3])), [[1], [NAN], [-3]])
    assert_dense(encode(x, x=Values(Kind.DECIMAL, ["1.50", None])), [[1.5], [NAN]])
    assert_dense(encode(x, x=texts("1e2", None, " 3 ")), [[100], [NAN], [3]])
    assert_dense(encode(x, x=Values(Kind.TIMESTAMP, [43_200_000_000])), [[0.5]])


def test_vectors_are_encoded() -> None:
    x = Feature(DENSE, column="x", width=2)
    assert_dense(encode(x, x=texts("1, 2", None, "3 4")), [[1, 2], [NAN, NAN], [3, 4]])


def test_sparse_texts_are_encoded() -> None:
    block = encode(Feature(SPARSE, column="x", width=10), x=texts("3:0.5 9:2", None, "", "1,1,4"))
    assert isinstance(block, SparseBlock)
    assert block.counts.tolist() == [2, 0, 0, 2]
    assert block.indices.tolist() == [3, 9, 1, 4]
    assert block.values.tolist() == [0.5, 2, 2, 1]


def test_buckets_are_encoded() -> None:
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
        (Feature(DENSE, column="x", width=2), "1,b", "row 2: '1,b' is not a list of numbers"),
        (Feature(SPARSE, column="x", width=5), "5:1", "has the index 5, and the size is 5"),
        (Feature(SPARSE, column="x", width=5), "a:1", "is not a list of index:value"),
        (Feature(SPARSE, column="x", width=5), "3:5 3:9", "has the index 3 twice"),
        (Feature(SPARSE, column="x", width=5), "3 3:9", "has the index 3 twice"),
        (Feature(SPARSE, column="x", width=5), "3:9 3", "has the index 3 twice"),
        (Feature(CATEGORY_ID, column="x", width=5), "5", "is not a whole number from 0 to 4"),
        (Feature(CATEGORY_ID, column="x", width=5), "1.5", "is not a whole number from 0 to 4"),
    ],
)
def test_unreadable_value_is_an_error_with_its_row(feature: Feature, value: str, message: str) -> None:
    encoder = Encoder(feature)
    encoder.encode({"x": texts(None)})
    with pytest.raises(UserError, match=message):
        encoder.encode({"x": texts(value)})


def test_vocabulary_is_sorted_in_any_order_of_rows() -> None:
    built = []
    for values in (["b", "a", None, "c"], ["c", "b", "a", None]):
        learner = Learner([], ["x"], {}, one_hot=False)
        learner.add({"x": texts(*values[:2])})
        learner.add({"x": texts(*values[2:])})
        matrix, (feature,), _ = learner.finish()
        assert feature.vocabulary == ["a", "b", "c"]
        assert matrix.types == ["c"]
        built.append(matrix.data[:, 0].tolist())
    np.testing.assert_array_equal(built, [[1, 0, NAN, 2], [2, 1, 0, NAN]])


def test_unseen_text_is_missing() -> None:
    feature = Feature(VOCABULARY, column="x", vocabulary=["a", "b"])
    assert_dense(encode(feature, x=texts("b", "z")), [[1], [NAN]])


def test_vocabulary_is_bounded() -> None:
    with pytest.raises(UserError, match="CATEGORY_HASH"):
        collected(texts(*(f"t{number}" for number in range(MAX_VOCABULARY + 1))))


def test_dense_and_sparse_features_are_joined() -> None:
    features = [
        Feature(DENSE, column="x"),
        Feature(SPARSE, column="s", width=3),
        Feature(INDICATOR, inputs=[Feature(CATEGORY_ID, column="c", width=2)]),
        Feature(CATEGORY_ID, column="c", width=2),
    ]
    columns = {"x": Values(Kind.INT, [0, None]), "s": texts("2:5", None), "c": Values(Kind.INT, [1, None])}
    builder = FixedFeatures(features, one_hot=False)
    builder.add(columns)
    matrix = builder.build()
    assert matrix.types == ["q"] * 6 + ["c"]
    assert matrix.data.toarray().tolist() == [[0, 0, 0, 5, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]
    # A zero is an entry, and a missing value is not.
    assert matrix.data.indptr.tolist() == [0, 4, 4]

    builder = FixedFeatures(features, one_hot=True)
    builder.add(columns)
    assert builder.build().data.toarray().tolist() == [[0, 0, 0, 5, 0, 1, 0, 1], [0] * 8]


BIG = 10**19


@pytest.mark.parametrize(
    ("kind", "write"), [(Kind.INT, int), (Kind.DECIMAL, str), (Kind.TEXT, str)], ids=["int", "decimal", "text"]
)
def test_whole_numbers_beyond_64_bits_keep_their_precision(kind: Kind, write: Any) -> None:
    numbers = [BIG + 100 * k for k in range(1000)]
    first = Values(kind, [write(value) for value in numbers[:500]])
    # The numbers of the second batch are larger, and some are missing.
    rest = Values(kind, [None, *(write(value) for value in numbers[500:])])
    for batches in ((first, rest), (rest, first)):
        learned = collected(*batches)
        assert (learned.report.distinct, learned.report.missing) == (1000, 1)
        assert "loses precision" not in learned.report.warnings
        assert len(np.unique(learned.block[~np.isnan(learned.block)])) == 1000
        assert learned.feature is not None
        used = np.concatenate([encode(learned.feature, x=batch) for batch in batches])
        np.testing.assert_array_equal(used, learned.block)
        # In prediction, 64-bit values keep their distance.
        (found,) = encode(learned.feature, x=Values(Kind.INT, [9 * 10**18, None]))[:1]
        assert found == np.float32(9 * 10**18 - learned.feature.offset)


def test_one_value_beyond_64_bits_does_not_change_counts() -> None:
    numbers = [10**18 + k for k in range(1000)]
    outlier = 10**30
    for batches in (
        [Values(Kind.DECIMAL, [*map(str, numbers), str(outlier)])],
        [Values(Kind.INT, numbers), Values(Kind.DECIMAL, [str(outlier)])],
        [Values(Kind.DECIMAL, [str(outlier)]), Values(Kind.INT, numbers)],
    ):
        learned = collected(*batches)
        assert learned.report.distinct == 1001
        assert "loses precision" in learned.report.warnings


def test_fractions_that_become_equal_cause_a_warning() -> None:
    # One difference in twenty is too small for 32 bits, because the other values are far apart.
    values = [float(k * 1000) + 0.5 for k in range(950)] + [0.25 + 1e-12 * k for k in range(50)]
    learned = collected(Values(Kind.FLOAT, values))
    assert learned.report.distinct == 1000
    assert learned.report.warnings == ["loses precision"]


def test_timestamp_before_year_one_can_be_a_category() -> None:
    assert text_of(Kind.TIMESTAMP_UTC, 0) == "1970-01-01 00:00:00"
    before = -62_135_596_800_000_000 - 3_600_000_000
    assert text_of(Kind.TIMESTAMP_UTC, before) == str(before)
