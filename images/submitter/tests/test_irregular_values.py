"""Values that resemble another form, or that exceed every type."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Runner
from expressions import call
from tables import accuracy, column, database, feature, make, meta, rejects, trained

from sqlflow_submitter.errors import UserError

ROWS = 100


def evaluate(runner: Runner, table: str = "d") -> None:
    runner.run(kind="evaluate", select=f"SELECT * FROM {table}", label="y", model_dir="m")


@pytest.mark.parametrize("word", ["no", "yes", "f", "t", "TRUE"])
def test_boolean_words_are_not_numbers(runner: Runner, word: str) -> None:
    rows: list[tuple[Any, int]] = [(f"{k / 2}", k % 2) for k in range(ROWS)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    trained(runner)
    rows[6] = (word, 0)
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    with pytest.raises(UserError, match=rf"^column x, row 7: '{word}' is not a number"):
        evaluate(runner)
    rejects(runner, rf"^column x, row 7: '{word}' is not a number")
    if database(runner) == "sqlite":
        for kind in ("integer", "REAL", ""):
            make(runner, "d", {"x": kind, "y": "integer"}, [(k if k != 6 else word, k % 2) for k in range(ROWS)])
            rejects(runner, rf"^column x, row 7: '{word}' is not a number")


def test_boolean_words_stay_booleans_in_predict(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "boolean", "y": "integer"}, [(("true", "FALSE")[k % 2], k % 2) for k in range(ROWS)])
    assert feature(trained(sqlite_runner), "x")["boolean"] is True
    make(sqlite_runner, "d", {"x": "text", "y": "integer"}, [(("yes", "f")[k % 2], k % 2) for k in range(ROWS)])
    assert accuracy(sqlite_runner) == 1


@pytest.mark.parametrize("odd", ["9" * 309, "-" + "9" * 5000, "1e400"])
def test_text_with_very_many_digits_is_infinite(runner: Runner, odd: str) -> None:
    rows = [(odd if k == 6 else str(k), k % 2) for k in range(ROWS)]
    make(runner, "d", {"x": TEXT[database(runner)], "y": "integer"}, rows)
    assert column(trained(runner), "x")["missing"] == 1
    evaluate(runner)
    rejects(runner, r"^label x, row 7: '-?[91].* is not a number", select="y AS z, x", label="x")


TEXT = {"sqlite": "TEXT", "mysql": "TEXT", "postgresql": "text"}


def test_decimal_with_very_many_digits_is_infinite(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    for digits in (309, 5000):
        rows = [(k, k % 2) for k in range(ROWS)]
        make(runner, "d", {"x": "numeric", "y": "integer"}, rows)
        runner.sql(f"UPDATE d SET x = {'9' * digits} WHERE x = 6")
        assert column(trained(runner), "x")["missing"] == 1
        with pytest.raises(UserError, match=r"^label x, row .* is not a number"):
            trained(runner, select="y AS z, x", label="x")


def test_classes_match_in_a_label_of_another_type(runner: Runner) -> None:
    numbers = [(k, k % 3) for k in range(ROWS)]
    texts = [(k, str(k % 3)) for k in range(ROWS)]
    make(runner, "w", {"x": "integer", "y": "integer"}, numbers)
    make(runner, "t", {"x": "integer", "y": "text"}, texts)
    for table, other in (("w", "t"), ("t", "w")):
        trained(runner, table=table)
        assert accuracy(runner, other) == accuracy(runner, table) > 0.3
    validation = {"validation.select": "SELECT x, CAST(y AS CHAR(1)) AS y FROM w"}
    trained(runner, table="w", attributes=validation)
    make(runner, "t", {"x": "integer", "y": "text"}, [*texts, (1, "7")])
    trained(runner, table="w")
    with pytest.raises(UserError, match=r"^label y, row 101: '7' is not a class of the model, which has 0, 1, 2"):
        accuracy(runner, "t")


def test_probability_columns_that_differ_in_case_are_numbered(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in range(ROWS)])
    document = trained(sqlite_runner, select='x, -x AS "X", y')
    assert [feature["column"] for feature in document["features"]] == ["x", "X"]
    sqlite_runner.run(kind="evaluate", select='SELECT x, -x AS "X", y FROM d', label="y", model_dir="m")


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        (["9:30", "10:45", "23:00"], ["times of a day"]),
        (["09:30:00", "10:45:59", "23:00:00.5"], ["times of a day"]),
        (["16:9", "3:2", "4:3"], []),
        (["01", "1", "2"], ["leading zeros"]),
        (["01234", "90210", "60601"], ["leading zeros"]),
        (["00.5", "7", "x"], ["leading zeros"]),
    ],
)
def test_values_that_resemble_numbers_or_lists_are_categories(
    runner: Runner, values: list[str], warnings: list[str]
) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, [(values[k % 3], int(k % 3 == 0)) for k in range(ROWS)])
    document = trained(runner)
    assert feature(document, "x")["vocabulary"] == sorted(values)
    assert column(document, "x")["warnings"] == warnings
    assert accuracy(runner) == 1


@pytest.mark.parametrize("values", [["0", "0.5", "-0.25"], ["1", "10", "0"]])
def test_single_zero_is_not_a_code(runner: Runner, values: list[str]) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, [(values[k % 3], int(k % 3 == 0)) for k in range(ROWS)])
    assert column(trained(runner), "x")["taken_as"] == "number"


def test_time_is_the_same_in_every_database(runner: Runner) -> None:
    moments = ["10:30:00", "00:00:00", "23:59:59"]
    make(runner, "d", {"x": "time", "y": "integer"}, [(moments[k % 3], int(k % 3 == 0)) for k in range(ROWS)])
    assert feature(trained(runner), "x")["vocabulary"] == sorted(moments)


def test_dense_reads_codes_as_numbers(runner: Runner) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, [(f"{k:03}", int(k >= 50)) for k in range(ROWS)])
    trained(runner, columns={"feature_columns": [call("DENSE", "x")]})
    assert feature(meta(runner), "x")["form"] == "number"
    assert accuracy(runner) == 1


def test_codes_in_a_label_are_classes(runner: Runner) -> None:
    rows = [(k, ("01", "1", "2.5")[k % 3]) for k in range(ROWS)]
    make(runner, "d", {"x": "integer", "y": "text"}, rows)
    assert trained(runner)["classes"] == ["01", "1", "2.5"]


LISTS = [
    (None, ["1,2,3", "4,5,6"]),
    (None, ["3:0.5 9:1", "4:1"]),
    (call("DENSE", "x", 3), ["1,2,3", "4,5,6"]),
    (call("SPARSE", "x", 10), ["3:0.5 9:1", "4:1"]),
]


@pytest.mark.parametrize(("spelled", "values"), LISTS)
def test_missing_lists_are_missing_in_predict(
    runner: Runner, spelled: Any, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(["", "NA", None, *values * 9][k % 21], k % 2) for k in range(ROWS)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    fields = {"columns": {"feature_columns": [spelled]}} if spelled else {}
    trained(runner, attributes={"validation.select": "SELECT * FROM d"}, **fields)
    said = "10 value(s) taken as missing: empty text or word for a missing value, first '' in row 1"
    output = capsys.readouterr().out
    assert f"column x: {said}" in output
    assert f"validation: column x: {said}" in output
    for statement in (
        {"kind": "predict", "result_table": "d_out", "result_column": "y"},
        {"kind": "evaluate", "label": "y"},
    ):
        runner.run(select="SELECT * FROM d", model="m", model_dir="m", **statement)
        assert f"column x: {said}" in capsys.readouterr().out


def test_unseen_index_is_missing(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{k % 2}:1 199:2", k % 2) for k in range(ROWS)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    trained(runner)
    make(runner, "d", {"x": "text", "y": "integer"}, [*rows, ("1:1 500:2 501:1", 1)])
    capsys.readouterr()
    assert accuracy(runner) == 1
    said = "2 value(s) taken as missing: index that the model has not seen, first '1:1 500:2 501:1' in row 101"
    assert f"column x: {said}" in capsys.readouterr().out
    rejects(
        runner,
        "^column x, row 101: .* has the index 501, and the size is 200",
        columns={"feature_columns": [call("SPARSE", "x", 200)]},
    )


def test_fractions_and_large_whole_numbers_can_be_mixed(sqlite_runner: Runner) -> None:
    parts: list[list[Any]] = [[k + 0.5 for k in range(6000)], [3] * 6000, [20180111 + k for k in range(6000)]]
    found = []
    for order in ((0, 1, 2), (2, 1, 0), (2, 0, 1)):
        values = [value for place in order for value in parts[place]]
        make(sqlite_runner, "d", {"x": "NUMERIC", "y": "integer"}, [(x, int(x > 9000)) for x in values])
        described = column(trained(sqlite_runner), "x")
        found.append((described["taken_as"], described["distinct"], described["missing"]))
        # XGBoost's histogram has fewer bins than there are values.
        assert accuracy(sqlite_runner) > 0.99
    assert [(distinct, missing) for _, distinct, missing in found] == [(12001, 0)] * 3
    assert {taken_as.partition(",")[0] for taken_as, _, _ in found} == {"number"}


def test_list_of_another_length_is_an_error(runner: Runner) -> None:
    rows = [("1,2" if k == 6 else f"{k},{k % 7},{k % 3}", int(k >= ROWS // 2)) for k in range(ROWS)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    rejects(runner, r"^column x, row 7: '1,2' holds 2 number\(s\), where 99 of 100 values hold 3; exclude such rows")


def test_label_that_32_bits_cannot_distinguish_causes_a_warning(
    runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k, 20180111 + k) for k in range(ROWS)])
    assert column(trained(runner), "y")["warnings"] == ["loses precision"]
    assert "warning: column y: 50 of its 100 different values become equal" in capsys.readouterr().out


def test_early_stopping_with_using_counts_new_rounds_only(sqlite_runner: Runner) -> None:
    rows = [(k, (k * 7919) % 13, (k * k) % 2) for k in range(200)]
    make(sqlite_runner, "d", {"x": "integer", "z": "integer", "y": "integer"}, rows)
    attributes: dict[str, Any] = {"objective": "binary:logistic", "train.num_boost_round": 10}
    trained(sqlite_runner, attributes=attributes)
    attributes |= {"validation.select": "SELECT * FROM d WHERE x > 150", "train.early_stopping_rounds": 2}
    run = sqlite_runner.train("SELECT * FROM d WHERE x <= 150", "y", attributes=attributes, pretrained="m", output="n")
    measured = [{one.name: one.value for one in it.metrics} for it in run.payloads("metrics") if it.HasField("step")]
    rounds = [it for it in measured if it][: len(measured)]
    best = min(range(len(rounds)), key=lambda place: rounds[place]["validate-logloss"])
    kept = json.loads((sqlite_runner.folder / "n/model_meta.json").read_text())["evaluation"]
    assert kept == rounds[best]


def test_num_class_is_derived_from_the_label(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "integer", "y": "text"}, [(k, "ab"[k % 2]) for k in range(ROWS)])
    assert trained(sqlite_runner, attributes={"num_class": 2})["objective"] == "multi:softprob"
    rejects(
        sqlite_runner,
        r"^attribute num_class is 5, but label y has 2 classes: a, b; leave it out$",
        attributes={"num_class": 5},
    )


@pytest.mark.parametrize(("kind", "value"), [("boolean", True), ("text", "yes"), ("integer", 1)])
def test_label_with_one_class_is_rejected(runner: Runner, kind: str, value: Any) -> None:
    make(runner, "d", {"x": "integer", "y": kind}, [(k, value) for k in range(ROWS)])
    rejects(
        runner,
        r"^cannot train: label y has one class only, \S+; select rows of another class, too$",
        attributes={"num_class": 2},
    )
    if kind != "integer":
        rejects(runner, r"^cannot train: label y has one class only")


def test_numbers_in_a_boolean_column_are_counted(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    make(runner, "d", {"x": "boolean", "y": "integer"}, [(k % 2 == 1, k % 2) for k in range(ROWS)])
    document = trained(runner)
    assert (feature(document, "x")["boolean"], column(document, "x")["warnings"]) == (True, [])
    evaluate(runner)
    assert "warning:" not in capsys.readouterr().out
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k % 7, k % 2) for k in range(70)])
    evaluate(runner)
    said = "column x: 50 value(s) other than 0 and 1 in a boolean column, read as numbers, first 2 in row 3"
    assert f"warning: {said}" in capsys.readouterr().out
    if database(runner) != "postgresql":
        make(runner, "d", {"x": "boolean", "y": "integer"}, [(k % 7, k % 2) for k in range(70)])
        document = trained(runner)
        assert "boolean" not in feature(document, "x")
        assert column(document, "x")["warnings"] == ["not only 0 and 1"]
        assert f"warning: {said}" in capsys.readouterr().out
        evaluate(runner)
        assert "warning:" not in capsys.readouterr().out


def test_infinite_date_in_label_is_not_a_date(runner: Runner) -> None:
    rows = [("infinity" if k == 6 else f"2023-02-{k % 28 + 1:02}", k) for k in range(60)]
    kind = "text" if database(runner) == "mysql" else "date"
    make(runner, "d", {"y": kind, "x": "integer"}, rows)
    rejects(runner, "^label y, row 7: 'infinity' is not a date")


def test_dates_with_years_of_seven_digits(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    odd = {6: "5874897-12-31", 7: "100000-01-01", 8: "294246-12-31"}
    rows = [(odd.get(k, f"2023-02-{k % 28 + 1:02}"), k % 2) for k in range(60)]
    for kind in ("date", "text"):
        make(runner, "d", {"x": kind, "y": "integer"}, rows)
        found = column(trained(runner), "x")
        assert (found["taken_as"], found["missing"], found["distinct"]) == ("date, in days", 1, 30)
    rejects(runner, "^label x, row 7: '5874897-12-31' is a date beyond the year 294246", select="y AS z, x", label="x")
