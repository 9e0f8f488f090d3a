"""The same rows give the same features, in any order and in any batches."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import Runner
from tables import accuracy, column, feature, make, rejects, trained

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features import dictionary, labels
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.learn import Learner
from sqlflow_submitter.features.spec import DENSE, Feature
from sqlflow_submitter.values import Kind, Values

KIND_OF_TYPE = {int: Kind.INT, float: Kind.FLOAT, str: Kind.TEXT, bytes: Kind.BLOB}


def decode(values: Sequence[Any]) -> Values:
    """Returns the values of a column of a batch with their kind, as SQLite's come: MIXED if they have several."""
    types = {type(value) for value in values if value is not None}
    if len(types) > 1:
        return Values(Kind.MIXED, values)
    return Values(KIND_OF_TYPE[types.pop()] if types else Kind.TEXT, values)


MAX_VOCABULARY = 6
"""A small limit, so that columns of a few rows exceed it."""

TEXTS: dict[str, list[Any]] = {
    "number": ["1", "2.5", "-3", "1e3", "20180111", "20180112", "16777217", "7", "+8", ".5", "1e400"],
    "code": ["01", "007", "-02.5"],
    "date": ["2024-01-01", "2024-01-02 10:30:00.5", "2023-12-31T23:00Z", "1999-01-01", "2000-02-29", "0044-03-15 BC"],
    "word": ["red", "blue", "green", "12X", "true", "9:30:00"],
    "list of two": ["1,2", "3, 4", "5,6", "-1,.5", "1,1", "2,2", "3,3", "0,0"],
    "list of three": ["1,2,3", "4,5,6", "7,8,9"],
    "no list": ["1,,2", "1,nan", "1 2", "1_0,2"],
    "pair": ["1:2", "3:0.5", "16:9", "10:30", "4:3", "7:1", "8:1", "9:1e2"],
    "pairs": ["1:1 2:2", "5:0.5, 9:1"],
    "no pair": ["1:nan", "1:2;3:4", "1:", "x:1", "1_0:2 3:4"],
    "missing": ["", "NA", " ", "?", "null", "Infinity", "-", "n/a"],
    "null": [None],
}
VALUES: dict[str, list[Any]] = {
    "whole": [0, 1, 2, 20180111, 20180112, -5, 2**40, 2**40 + 1],
    "large": [2**62 + 1, 2**62 + 2, 2**62 + 3],
    "low": [-(2**62), -(2**62) - 1],
    "fraction": [0.5, 2.25, -1e10, 0.1, 1e300 * 1e10],
    "large float": [2.0**62, 7.0],
    "bytes": [b"x"],
}
TYPED: list[tuple[Kind, str, list[Any]]] = [
    (Kind.INT, "BIGINT", [0, 1, -7, 20180111, 20180112, 2**53 + 1, 2**62 + 1]),
    (Kind.INT, "BIGINT UNSIGNED", [0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    (Kind.FLOAT, "DOUBLE", [0.0, -1.5, 20180111.0, 20180111.5, float("nan"), float("inf")]),
    (Kind.DECIMAL, "numeric", ["1", "1.0", "2.50", "20180111", "9007199254740993", "9007199254740993.00", "-1e400"]),
    (Kind.BOOL, "boolean", [True, False]),
    (Kind.DATE, "date", [0, -1, 19000, 19001]),
    (Kind.TIMESTAMP, "timestamp", [0, 86_400_000_000 * 19000, 86_400_000_000 * 19000 + 1, 86_400_000_000 * 19000 + 2]),
]


def outcome(batches: Sequence[Values], rows: Sequence[int], declared: str, is_named: bool) -> Any:
    """Returns what is learned about a column, with its rows in their original order, or that it is an error."""
    named = [Feature(DENSE, column="x")] if is_named else []
    learner = Learner(named, [] if is_named else ["x"], {"x": declared}, one_hot=False)
    try:
        for batch in batches:
            learner.add({"x": batch})
        learned = learner.finish()
    except UserError as wrong:
        return str(wrong) if "no column has a value" in str(wrong) else "error"
    data = learned.matrix.data
    dense = data if isinstance(data, np.ndarray) else np.where(data.toarray() == 0, np.nan, data.toarray())
    report = learned.reports[0]
    # Increasing numbers look like row numbers, which depends on the order.
    warnings = [warning for warning in report.warnings if warning != "looks like an id"]
    return (
        [feature.to_json() for feature in learned.features],
        dense[np.argsort(rows)].tobytes(),
        (report.taken_as, report.distinct, report.missing, warnings),
    )


def check(values: Sequence[Any], kind: Kind | None, declared: str, is_named: bool, chance: random.Random) -> Any:
    """Compares several orders and batches of values. Returns their common outcome."""

    def batch(part: Sequence[int]) -> Values:
        found = [values[row] for row in part]
        return decode(found) if kind is None else Values(kind, found)

    first = None
    for trial in range(6):
        rows = list(range(len(values)))
        if trial == 1:
            rows.reverse()
        elif trial > 1:
            chance.shuffle(rows)
        size = chance.choice([1, 2, 3, 5, 100])
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        found = outcome([batch(part) for part in parts], rows, declared, is_named)
        if trial == 0:
            first = found
        assert found == first, (values, declared, is_named, rows, size)
    return first


@pytest.fixture
def small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "MAX_VOCABULARY", MAX_VOCABULARY)


@pytest.mark.parametrize("declared", ["TEXT", "", "DATE", "REAL", "BOOLEAN"])
@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.usefixtures("small_vocabulary")
def test_order_of_texts_does_not_matter(declared: str, is_named: bool) -> None:
    chance = random.Random(f"{declared} {is_named}")
    pools = TEXTS if declared == "TEXT" else TEXTS | VALUES
    seen = set()
    for _ in range(700):
        chosen = chance.sample(list(pools), chance.choice([1, 2, 2, 3]))
        main = pools[chosen[0]]
        odd = [value for name in chosen[1:] for value in pools[name]]
        values = chance.choices(main, k=chance.randint(1, 25)) + chance.choices(odd or main, k=chance.choice([0, 1, 9]))
        found = check(values, None, declared, is_named, chance)
        seen.add(found if isinstance(found, str) else found[2][0].partition(" ")[0].rstrip(",0123456789"))
    assert {"error", "number"} <= seen
    if declared == "TEXT" and not is_named:
        # Every kind occurred.
        assert {
            "date",
            "vocabulary",
            "sparse",
            "",
            "cannot train: no column has a value in any row",
        } <= seen


def label_outcome(batches: Sequence[Values], rows: Sequence[int], declared: str) -> Any:
    """Returns the decision about a label, and the labels in the original order of rows, or that it is an error."""
    reader = LabelReader("y", None, None, declared)
    try:
        for batch in batches:
            reader.add(batch)
        labels = reader.finish()
    except UserError:
        return "error"
    seen = reader.seen()
    found = [seen[int(code)] if reader.as_classes else code for code in labels]
    report = reader.report()
    back = [value for _, value in sorted(zip(rows, found, strict=True), key=lambda it: it[0])]
    form = None if reader.as_classes else reader.form
    return reader.as_classes, reader.reason, form, back, report.distinct, report.warnings


@pytest.mark.parametrize("declared", ["TEXT", "", "DATE", "REAL", "BOOLEAN", "INTEGER"])
def test_order_of_labels_does_not_matter(declared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole numbers with so many different values are not classes.
    monkeypatch.setattr(labels, "MAX_WHOLE_CLASSES", 6)
    monkeypatch.setattr(labels, "MAX_CLASSES", 8)
    chance = random.Random(declared)
    pools = TEXTS if declared == "TEXT" else TEXTS | VALUES
    seen = set()
    for _ in range(700):
        chosen = chance.sample([name for name in pools if name != "null"], chance.choice([1, 2, 2, 3]))
        values = [value for name in chosen for value in chance.choices(pools[name], k=chance.choice([1, 3, 30]))]
        first = None
        for trial in range(5):
            rows = list(range(len(values)))
            if trial:
                chance.shuffle(rows)
            size = chance.choice([1, 2, 5, 100])
            parts = [[values[row] for row in rows[start : start + size]] for start in range(0, len(rows), size)]
            found = label_outcome([decode(part) for part in parts], rows, declared)
            if not trial:
                first = found
                seen.add(found[0])
            assert found == first, (values, declared, rows, size)
    assert {"e", False} <= seen
    assert True in seen or declared not in ("TEXT", "")


@pytest.mark.parametrize(("kind", "declared", "pool"), TYPED)
def test_order_of_typed_values_does_not_matter(kind: Kind, declared: str, pool: list[Any]) -> None:
    chance = random.Random(declared)
    for _ in range(100):
        check(chance.choices([*pool, None], k=chance.randint(1, 12)), kind, declared, False, chance)


def test_single_pairs_are_sparse_if_any_row_has_two(runner: Runner) -> None:
    # More different texts than a vocabulary may have.
    rows: list[tuple[str, int]] = [(f"{k}:1", k % 2) for k in range(10_050)]
    rows[0] = ("0:1 10060:2", 0)
    for ordered in (rows, rows[::-1]):
        make(runner, "d", {"x": "text", "y": "integer"}, ordered)
        document = trained(runner, attributes={"train.num_boost_round": 1})
        assert (feature(document, "x")["kind"], feature(document, "x")["width"]) == ("sparse", 10_061)
    make(runner, "d", {"x": "text", "y": "integer"}, rows[1:])
    rejects(runner, r"^column x has more than 10000 different texts; .*, or SPARSE\(x, size\) if it has index:value")
    make(runner, "d", {"x": "text", "y": "integer"}, [*rows[1:], ("10:1,,3", 1)])
    rejects(runner, "^column x has more than 10000 different texts")


@pytest.mark.parametrize("odd", ["5", "1:nan", "a"])
def test_value_that_is_not_a_pair_is_rejected_in_any_position(odd: str) -> None:
    pairs = [f"{k}:1 {k + 1}:2" for k in range(10_050)]
    for values in ([*pairs, odd], [odd, *pairs]):
        learner = Learner([], ["x"], {}, one_hot=False)
        with pytest.raises(UserError, match=f"^column x, row ([0-9]+): '{odd}' is not a list of index:value, as "):
            for start in range(0, len(values), 4096):
                learner.add({"x": Values(Kind.TEXT, values[start : start + 4096])})
            learner.finish()


def test_frequent_word_among_many_numbers_is_an_error(runner: Runner) -> None:
    rows = [("unknown" if k % 5 < 3 else f"{k}.5", k % 2) for k in range(200)]
    for ordered in (rows, rows[::-1]):
        make(runner, "d", {"x": "text", "y": "integer"}, ordered)
        rejects(runner, "^column x, row [0-9]+: 'unknown' is not a number, as 80 of 200 values are; exclude such rows")


def test_whole_numbers_beyond_64_bits_keep_their_sign(runner: Runner) -> None:
    kind = {"sqlite": "REAL", "mysql": "BIGINT UNSIGNED", "postgresql": "numeric"}[runner.dsn.partition(":")[0]]
    # Further apart than 2^63, in more than one batch.
    values = [k if k % 2 else 2**64 - 1 - k for k in range(5000)]
    make(runner, "d", {"x": kind, "y": "integer"}, [(value, int(value > 2**63)) for value in values])
    assert column(trained(runner), "x")["missing"] == 0
    # XGBoost's histogram has fewer bins than there are values.
    assert accuracy(runner) > 0.99
