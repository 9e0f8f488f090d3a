"""The COLUMN clause: its features, and messages about mistakes."""

import pytest
from expressions import call, expression

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import Clause
from sqlflow_submitter.features.spec import Feature

AVAILABLE = ["age", "city", "tags", "vector", "x_1", "x_2", "label"]


def clause(*items: object) -> Clause:
    return Clause([expression(item) for item in items], AVAILABLE, "label")


def feature(item: object) -> dict[str, object]:
    (only,) = clause(item).features
    # The stored form of a feature is read back unchanged.
    assert Feature.from_json(only.to_json()).to_json() == only.to_json()
    return only.to_json()


def test_bare_columns_and_star_are_derived() -> None:
    assert clause("age", "city").derived == ["age", "city"]
    assert clause("*").derived == AVAILABLE[:-1]
    starred = clause(call("DENSE", "age"), "*")
    assert starred.derived == ["city", "tags", "vector", "x_1", "x_2"]
    assert [made.column for made in starred.features] == ["age"]


def test_except_removes_columns() -> None:
    assert clause(call("EXCEPT", "city", '"x_.*"', "label")).derived == ["age", "tags", "vector"]
    both = clause(call("EXCEPT", "age"), call("CATEGORY_HASH", "city", 9))
    assert both.derived == ["tags", "vector", "x_1", "x_2"]
    with pytest.raises(UserError, match="column agee does not exist; did you mean age"):
        clause(call("EXCEPT", "agee"))


def test_names_match_in_another_case() -> None:
    assert clause("AGE").derived == ["age"]


def test_pattern_selects_all_columns_that_it_matches() -> None:
    assert clause('"x_.*"').derived == ["x_1", "x_2"]
    assert [made.column for made in clause(call("CATEGORY_ID", '"x_.*"', 5)).features] == ["x_1", "x_2"]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (call("DENSE", "age"), {"kind": "dense", "column": "age", "width": 1}),
        (call("numeric", "vector", 3, '";"'), {"kind": "dense", "column": "vector", "width": 3, "separator": ";"}),
        (call("DENSE", "vector", [3], "COMMA"), {"kind": "dense", "column": "vector", "width": 3, "separator": ","}),
        (
            call("SPARSE", "tags", 100, "COMMA", "int", '"="', "float"),
            {"kind": "sparse", "column": "tags", "width": 100, "separator": ",", "pair_separator": "="},
        ),
        (call("CATEGORY_ID", "city", 10), {"kind": "category_id", "column": "city", "width": 10}),
        (call("CATEGORY_HASH", "city", 10), {"kind": "category_hash", "column": "city", "width": 10}),
        (
            call("CATEGORY_ID", call("SPARSE", "tags", 9, "COMMA"), 9),
            {"kind": "sparse", "column": "tags", "width": 9, "separator": ",", "pair_separator": ":"},
        ),
        (
            call("WEIGHTED_CATEGORY", call("CATEGORY_ID", call("SPARSE", "tags", 9), 9)),
            {"kind": "sparse", "column": "tags", "width": 9, "pair_separator": ":"},
        ),
        (
            call("BUCKET", call("NUMERIC", "age", 1), [-1, 20]),
            {
                "kind": "bucket",
                "width": 1,
                "boundaries": [-1.0, 20.0],
                "inputs": [{"kind": "dense", "column": "age", "width": 1}],
            },
        ),
        (
            call("INDICATOR", call("CATEGORY_ID", "city", 4)),
            {"kind": "indicator", "width": 1, "inputs": [{"kind": "category_id", "column": "city", "width": 4}]},
        ),
    ],
)
def test_functions_create_features(item: object, expected: object) -> None:
    assert feature(item) == expected


def test_cross_combines_columns_and_buckets() -> None:
    (cross,) = clause(call("CROSS", ["city", call("BUCKET", "age", [18])], 50)).features
    assert cross.columns() == ["city", "age"]
    assert cross.codes() == 50
    assert cross.matrix_width() == 1
    assert cross.label() == "city_x_age"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("ages", r"column ages does not exist; did you mean age.*the select has: age, city"),
        ("label", "label is the label"),
        ('"y_.*"', "does not exist"),
        ('"("', "no regular expression"),
        (call("DENS", "age"), r"feature column DENS does not exist; did you mean DENSE\?"),
        (call("EMBEDDING", "city", 8), "EMBEDDING is of no use to XGBoost"),
        (call("SEQ_CATEGORY_ID", "city", 8), "SEQ_CATEGORY_ID is of no use"),
        (call("DENSE"), "DENSE needs a column"),
        (call("DENSE", 3), "DENSE needs a column; found 3"),
        (call("DENSE", "age", 0), "whole number from 1"),
        (call("DENSE", "age", 1.5), "whole number from 1"),
        (call("SPARSE", "tags"), "SPARSE needs its size"),
        (call("SPARSE", "tags", 5, 6), "separator"),
        (call("BUCKET", "age"), "BUCKET needs its boundaries"),
        (call("BUCKET", "age", [3, 2]), r"boundaries \[3, 2\] must increase"),
        (call("BUCKET", call("CATEGORY_ID", "age", 2), [1]), "BUCKET needs one number"),
        (call("CATEGORY_ID", "age"), "CATEGORY_ID needs its number of categories"),
        (call("CATEGORY_ID", "age", "x"), "CATEGORY_ID needs a number; found x"),
        (call("CROSS", "age", 5), "list of two columns"),
        (call("CROSS", ["age", "city"]), "CROSS needs its number of categories"),
        (call("INDICATOR", "city"), r"INDICATOR\(CATEGORY_ID\(city, 10\)\)"),
        (call("INDICATOR", call("DENSE", "age")), "INDICATOR needs categories"),
        (call("DENSE", "age", 1, '","', "int", 5), "at most 4"),
        (3, "COLUMN holds 3"),
        ({"binary": "+", "left": {"ident": "age"}, "right": {"number": 1}}, r"COLUMN holds age \+ 1"),
    ],
)
def test_mistakes_are_rejected(item: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clause(item)


def test_column_named_twice_is_rejected() -> None:
    with pytest.raises(UserError, match="named twice"):
        clause("age", "AGE")


def test_label_alone_is_rejected() -> None:
    with pytest.raises(UserError, match="no feature column"):
        Clause([{"ident": "*"}], ["label"], "label")
