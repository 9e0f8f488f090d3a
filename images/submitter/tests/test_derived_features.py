"""The features that are derived from columns are the same in every database."""

from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from expressions import call
from tables import accuracy, column, database, feature, make, rejects, trained

DAY = 86_400_000_000
ROWS = 200


def halves(odd: Any, rows: int = ROWS) -> list[tuple[Any, int]]:
    """Returns numbers as texts, with class 1 for the upper half. The last number is replaced by `odd`."""
    values: list[tuple[Any, int]] = [
        (f"{(k * 7919) % rows + 0.5}", int((k * 7919) % rows >= rows // 2)) for k in range(rows)
    ]
    values[16] = (odd, values[16][1])
    return values


@pytest.mark.parametrize("odd", ["", " ", "N/A", "nan", "Infinity", None])
def test_missing_value_among_numbers_does_not_create_a_vocabulary(runner: Runner, odd: str | None) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, halves(odd))
    document = trained(runner)
    assert feature(document, "x") == {"kind": "dense", "width": 1, "column": "x", "form": "number"}
    found = column(document, "x")
    assert (found["taken_as"], found["missing"], found["distinct"]) == ("number", 1, ROWS - 1)
    assert found["warnings"] == ([] if odd is None else ["1 value(s) taken as missing"])
    assert accuracy(runner) >= 0.99


def test_word_among_numbers_is_an_error_with_column_row_and_value(
    runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, halves("abc"))
    rejects(runner, "^column x, row 17: 'abc' is not a number, as 199 of 200 values are; .* CATEGORY_HASH")
    make(runner, "d", {"x": "text", "y": "integer"}, halves(""))
    trained(runner)
    said = capsys.readouterr().out
    assert "warning: column x: 1 value(s) taken as missing: empty text" in said
    assert "first '' in row 17" in said


def test_frequent_word_among_numbers_is_an_error(runner: Runner) -> None:
    rows = [("unknown" if k % 7 == 3 else f"{k}.5", k % 2) for k in range(ROWS)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    rejects(runner, "^column x, row 4: 'unknown' is not a number, as 171 of 200 values are")
    # A few codes, one of them a letter, are words.
    make(runner, "d", {"x": "text", "y": "integer"}, [("12X"[k % 3], k % 2) for k in range(ROWS)])
    assert column(trained(runner), "x")["warnings"] == ["not only words"]


def test_decimal_commas_cause_a_warning(runner: Runner) -> None:
    make(runner, "d", {"x": "text", "y": "integer"}, [(f"{k},5", k % 2) for k in range(ROWS)])
    assert column(trained(runner), "x")["warnings"] == ["decimal commas?"]


def test_empty_text_in_numeric_sqlite_column_is_missing(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "REAL", "y": "integer"}, halves(""))
    document = trained(sqlite_runner)
    assert column(document, "x")["missing"] == 1
    assert accuracy(sqlite_runner) >= 0.99
    make(sqlite_runner, "d", {"x": "REAL", "y": "integer"}, halves("abc"))
    rejects(sqlite_runner, "^column x, row 17: 'abc' is not a number")


@pytest.mark.parametrize("label", ["boolean", "integer"])
def test_words_and_numbers_in_sqlite_expression_are_an_error(sqlite_runner: Runner, label: str) -> None:
    make(sqlite_runner, "d", {"x": "REAL", "y": label}, [(k, k % 2) for k in range(50)])
    rejects(sqlite_runner, "^column z, row 8: 'seven' is not a number; CAST", select="iif(x = 7, 'seven', x) AS z, y")


def test_infinity_among_dates_is_missing(runner: Runner) -> None:
    days = [(f"2024-{k % 12 + 1:02}-{k % 28 + 1:02}", int(k % 12 >= 6)) for k in range(ROWS)]
    is_postgresql = database(runner) == "postgresql"
    days[99] = ("infinity", days[99][1])
    make(runner, "d", {"x": "date" if is_postgresql else "text", "y": "integer"}, days)
    document = trained(runner)
    assert feature(document, "x")["form"] == "date"
    assert column(document, "x")["missing"] == 1
    assert accuracy(runner) >= 0.99


def test_nonexistent_dates_are_missing(mysql_dsn: str, tmp_path: Any) -> None:
    runner = Runner(mysql_dsn, tmp_path)
    make(
        runner,
        "d",
        {"x": "date", "y": "integer"},
        [(f"2024-02-{k % 28 + 1:02}", int(k % 28 > 13)) for k in range(ROWS)],
    )
    agent = StandInAgent(tmp_path, mysql_dsn)
    agent.run("SET sql_mode = ''", "UPDATE d SET x = '0000-00-00' WHERE x = '2024-02-01'").succeeded()
    document = trained(runner)
    assert feature(document, "x")["form"] == "date"
    assert column(document, "x")["missing"] == 8


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_non_finite_numbers_are_missing(runner: Runner, value: str) -> None:
    if database(runner) == "mysql" or (database(runner) == "sqlite" and value == "NaN"):
        # MySQL has none, and SQLite stores it as NULL.
        return
    make(runner, "d", {"x": "number", "y": "integer"}, [(k + 0.5, int(k >= 100)) for k in range(ROWS)])
    odd = f"'{value}'" if database(runner) == "postgresql" else value.replace("Infinity", "9e999")
    runner.sql(f"UPDATE d SET x = {odd} WHERE x = 60.5")
    assert column(trained(runner), "x")["missing"] == 1
    assert accuracy(runner) == 1
    make(runner, "d", {"x": "number", "y": "number"}, [(k + 0.5, k * 1.5) for k in range(ROWS)])
    runner.sql(f"UPDATE d SET y = {odd} WHERE x = 60.5")
    rejects(runner, "^label y, row [0-9]+: (nan|-?inf) is not a number")


def test_number_too_large_for_32_bits_is_an_error(runner: Runner) -> None:
    make(runner, "d", {"x": "number", "y": "integer"}, [(1e300 if k == 7 else k + 0.1, k % 2) for k in range(50)])
    rejects(runner, "^column x, row 8: the number is too large for 32 bits")


def test_dates_and_timestamps_are_the_same_numbers_in_every_database(
    sqlite_dsn: str, mysql_dsn: str, postgresql_dsn: str, tmp_path: Any
) -> None:
    rows = [
        (
            f"2023-{k % 12 + 1:02}-15",
            f"2023-06-01 {k % 24:02}:{k % 60:02}:{k % 50:02}.25",
            f"2024-01-{k % 31 + 1:02}",
            k % 7,
        )
        for k in range(ROWS)
    ]
    features, predictions = [], []
    for dsn in (sqlite_dsn, mysql_dsn, postgresql_dsn):
        runner = Runner(dsn, tmp_path)
        make(runner, "d", {"a": "date", "b": "timestamp", "c": "text", "y": "number"}, rows)
        document = trained(runner)
        features.append(document["features"])
        runner.run(
            kind="predict", select="SELECT * FROM d", result_table="d_out", result_column="p", model="m", model_dir="m"
        )
        predictions.append(sorted(runner.sql("SELECT p FROM d_out")))
    assert features[0] == features[1] == features[2]
    assert predictions[0] == predictions[1] == predictions[2]
    assert [feature["form"] for feature in features[0]] == ["date"] * 3
    assert [feature["scale"] for feature in features[0]] == [DAY] * 3


def test_sqlite_expression_can_return_dates(sqlite_runner: Runner) -> None:
    make(
        sqlite_runner,
        "d",
        {"t": "timestamp", "y": "number"},
        [(f"2024-01-{k % 28 + 1:02} 10:00:00", k) for k in range(60)],
    )
    assert feature(trained(sqlite_runner, select="date(t) AS t, y"), "t")["form"] == "date"


@pytest.mark.parametrize("kind", ["bigint", "number", "text"])
@pytest.mark.parametrize("base", [20180100, 9_007_199_254_740_000 - 300, 1_515_625_200])
def test_large_numbers_keep_their_precision(runner: Runner, kind: str, base: int) -> None:
    values = [base + (k * 37) % 101 for k in range(101)]
    rows = [(str(value) if kind == "text" else value, value % 2) for value in values]
    make(runner, "d", {"x": kind, "y": "integer"}, rows)
    attributes = {"train.num_boost_round": 60, "eta": 1, "max_depth": 10, "min_child_weight": 0, "lambda": 0}
    document = trained(runner, attributes=attributes)
    assert feature(document, "x")["offset"] > 0
    assert accuracy(runner) == 1


def test_seconds_within_a_year_are_distinguished(runner: Runner) -> None:
    # Timestamps within a year, some a second apart.
    def moment(k: int) -> str:
        return f"2023-{k % 12 + 1:02}-{k % 28 + 1:02} {k % 24:02}:{k // 2 % 60:02}:{k % 2 + 4:02}"

    make(runner, "d", {"x": "timestamp", "y": "integer"}, [(moment(k), k % 2) for k in range(400)])
    document = trained(runner)
    assert feature(document, "x")["offset"] > 0
    assert column(document, "x")["warnings"] == []


def test_loss_of_precision_causes_a_warning(runner: Runner) -> None:
    rows = [((k % 3 - 1) * 10**15 + k, k % 2) for k in range(300)]
    make(runner, "d", {"x": "bigint", "y": "integer"}, rows)
    assert "loses precision" in column(trained(runner), "x")["warnings"]


LISTS = [
    (lambda k: f"{20180110 + k},1,1", None, 100),
    (lambda k: f"{2**62 + k},1,1", None, 199),
    (lambda k: f"1:1 2:{20180110 + k}", None, 100),
    (lambda k: f"{20180110 + k} 1 1", ("DENSE", 3), 100),
    (lambda k: f"1:{2**62 + k} 2:1", ("SPARSE", 5), 199),
    (lambda k: f"{1e6 + k / 1000:.3f},2,{k}.5", None, 195),
    (lambda k: f"{k / 7},{k},{16777216 + 2 * k}", None, 0),
]


@pytest.mark.parametrize("place", range(len(LISTS)))
def test_loss_of_precision_in_lists_causes_a_warning(
    runner: Runner, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text, function, lost = LISTS[place]
    make(runner, "d", {"x": "text", "y": "integer"}, [(text(k), k % 2) for k in range(200)])
    clause = {"columns": {"feature_columns": [call(function[0], "x", function[1])]}} if function else {}
    assert column(trained(runner, **clause), "x")["warnings"] == (["loses precision"] if lost else [])
    said = capsys.readouterr().out
    assert (f"warning: column x: {lost} of its " in said) == bool(lost)


def test_repeated_index_in_a_row_is_an_error(runner: Runner) -> None:
    make(
        runner, "d", {"x": "text", "y": "integer"}, [("3:5 3:9" if k == 6 else f"3:{k} 4:1", k % 2) for k in range(50)]
    )
    rejects(runner, "^column x, row 7: '3:5 3:9' has the index 3 twice")


def test_width_of_sparse_texts_depends_on_all_rows(runner: Runner) -> None:
    rows = [("4999:1 3:2" if k == 4999 else f"{k % 5}:1 7:{k % 3}", k % 3) for k in range(5000)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    assert feature(trained(runner), "x")["width"] == 5000


def test_late_rows_decide_features_too(runner: Runner) -> None:
    columns = {"late": "number", "numbers": "text", "vector": "text", "never": "number", "y": "integer"}
    rows = [
        (k / 4 if k >= 4500 else None, str(k) if k < 4990 else "", "1,2,3" if k % 2 else "", None, k % 2)
        for k in range(5000)
    ]
    make(runner, "d", columns, rows)
    document = trained(runner)
    taken = {column["name"]: (column["taken_as"], column["missing"]) for column in document["columns"]}
    assert taken == {
        "y": ("label, 2 classes", 0),
        "late": ("number", 4500),
        "numbers": ("number", 10),
        "vector": ("3 numbers", 2500),
        "never": ("left out", 5000),
    }
    assert [feature["column"] for feature in document["features"]] == ["late", "numbers", "vector"]
    rejects(runner, "no column has a value in any row", select="never, y")
    runner.sql("UPDATE d SET vector = 'x' WHERE numbers = '4001'")
    rejects(runner, "^column vector, row [0-9]+: 'x' is not a list of numbers, as 2499 of 2500 values are")


def test_names_and_ids_cause_warnings(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"id": "integer", "user_id": "integer", "name": "text", "age": "integer", "y": "integer"}
    rows = [(k, (k * 77) % 101, f"name {k}", k % 40, k % 2) for k in range(101)]
    make(runner, "d", columns, rows)
    document = trained(runner)
    warnings = {column["name"]: column["warnings"] for column in document["columns"]}
    assert warnings == {
        "y": [],
        "id": ["looks like an id"],
        "user_id": ["looks like an id"],
        "name": ["nearly unique"],
        "age": [],
    }
    lines = capsys.readouterr().out.splitlines()
    (head,) = (line for line in lines if line.startswith("column "))
    assert head.split() == ["column", "declared", "taken", "as", "distinct", "missing", "warnings"]
    (name,) = (line for line in lines if line.startswith("name "))
    assert " ".join(name.split()).endswith("vocabulary of 101 101 0 nearly unique")


def test_row_numbers_are_found_in_any_order(runner: Runner) -> None:
    values = [*range(90), *range(95, 205)]
    for order in (values, values[::-1], [values[k * 77 % 200] for k in range(200)]):
        make(runner, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in order])
        assert column(trained(runner), "x")["warnings"] == ["looks like an id"]
    # Increasing measurements are not row numbers.
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k * k, k % 2) for k in range(200)])
    assert column(trained(runner), "x")["warnings"] == []


def test_non_iso_dates_cause_a_warning(runner: Runner) -> None:
    make(
        runner,
        "d",
        {"x": "text", "y": "integer"},
        [(f"{k % 12 + 1:02}/{k % 5 + 1:02}/2024", k % 2) for k in range(200)],
    )
    assert column(trained(runner), "x")["warnings"] == ["not ISO dates"]


def test_trailing_blanks_of_char_are_removed(runner: Runner) -> None:
    rows = [(("red", "blue")[k % 2], ("no", "yes")[k % 2]) for k in range(100)]
    make(runner, "d", {"x": "char(9)", "y": "char(9)"}, rows)
    document = trained(runner)
    assert feature(document, "x")["vocabulary"] == ["blue", "red"]
    assert document["classes"] == ["no", "yes"]
    assert accuracy(runner) == 1
