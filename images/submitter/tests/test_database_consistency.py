"""The same data gives the same features in every database."""

import re
from pathlib import Path
from typing import Any

import pytest
from agent import StandInAgent
from conftest import Runner
from expressions import call
from tables import accuracy, column, database, feature, make, meta, rejects, trained

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.encode import text_of
from sqlflow_submitter.features.texts import BOOLEANS, MICROS_PER_DAY, micros
from sqlflow_submitter.values import Kind

ROWS = 100
DAY = 86_400_000_000


@pytest.fixture
def all_runners(sqlite_dsn: str, mysql_dsn: str, postgresql_dsn: str, tmp_path: Path) -> list[Runner]:
    return [Runner(dsn, tmp_path) for dsn in (sqlite_dsn, mysql_dsn, postgresql_dsn)]


def matrices(runners: list[Runner], types: dict[str, str], rows: list[Any], **fields: Any) -> list[Any]:
    """Trains in each database. Returns features, classes and predictions."""
    found = []
    for runner in runners:
        make(runner, "d", types, rows)
        document = trained(runner, **fields)
        runner.run(kind="predict", select="SELECT * FROM d", result_table="d_out", result_column="p", model_dir="m")
        predicted = sorted(runner.sql("SELECT p FROM d_out"))
        found.append((document["features"], document["classes"], predicted))
    return found


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["10:30:00.5", "00:00:00.050", "23:59:59.000"], ["00:00:00.05", "10:30:00.5", "23:59:59"]),
        (["10:30:00", "00:00:10", "23:59:59.120000"], ["00:00:10", "10:30:00", "23:59:59.12"]),
    ],
)
def test_trailing_zeros_of_a_time_fraction_are_removed(
    all_runners: list[Runner], written: list[str], expected: list[str]
) -> None:
    rows = [(written[k % 3], k % 3) for k in range(ROWS)]
    found = matrices(all_runners, {"x": "time(6)", "y": "integer"}, rows)
    assert found[0] == found[1] == found[2]
    assert found[0][0][0]["vocabulary"] == expected
    # As a label, and as a hash.
    fields = {"select": "y AS z, x AS y, x", "columns": {"feature_columns": [call("CATEGORY_HASH", "x", 1000)]}}
    found = matrices(all_runners, {"x": "time(6)", "y": "integer"}, rows, **fields)
    assert found[0] == found[1] == found[2]
    assert found[0][1] == expected
    for runner in all_runners:
        # Names match in another case.
        runner.run(kind="evaluate", select="SELECT x AS X, x AS Y FROM d", label="y", model_dir="m")


def test_timestamps_have_one_text(all_runners: list[Runner]) -> None:
    odd = ["2024-01-01 10:00:00.120", "2024-01-02 10:00:00.000", "2024-01-03", "2024-01-04 10:00:59.000001"]
    rows = [(odd[k % 4], k % 4) for k in range(ROWS)]
    types = {"x": "timestamp", "y": "integer"}
    expected = [
        "2024-01-01 10:00:00.120000",
        "2024-01-02 10:00:00",
        "2024-01-03 00:00:00",
        "2024-01-04 10:00:59.000001",
    ]
    for select in ("*", "y AS z, x AS y, x"):
        # As a hash, and as a label.
        fields = {
            "select": select,
            "columns": {"feature_columns": [call("CATEGORY_HASH", "x", 1000)]},
            "attributes": {"objective": "multi:softprob"},
        }
        found = matrices(all_runners, types, rows, **fields)
        assert found[0] == found[1] == found[2]
        assert found[0][1] == ([0, 1, 2, 3] if select == "*" else expected)


@pytest.mark.parametrize("zone", ["+05:00", "-03:30", "SYSTEM"])
def test_mysql_timestamp_does_not_depend_on_the_session(mysql_dsn: str, tmp_path: Path, zone: str) -> None:
    runner = Runner(mysql_dsn, tmp_path)
    runner.sql("DROP TABLE IF EXISTS d", "CREATE TABLE d (x TIMESTAMP, y INT)")
    values = ", ".join(f"(FROM_UNIXTIME({1_700_000_000 + 3600 * k}), {int(k < 30)})" for k in range(60))
    runner.sql(f"INSERT INTO d VALUES {values}")
    attributes = {"min_child_weight": 0, "train.num_boost_round": 20}
    expected = trained(runner, attributes=attributes)["features"]
    found = Runner(f"{mysql_dsn}{'&' if '?' in mysql_dsn else '?'}time_zone=%27{zone.replace('+', '%2B')}%27", tmp_path)
    assert trained(found, attributes=attributes)["features"] == expected
    assert expected[0]["offset"] // DAY == (1_700_000_000 + 3600 * 30) // 86400
    # The model of that session predicts the same in the default session.
    assert accuracy(runner) == accuracy(found) == 1
    # Standard statements print local times.
    hours = [found.sql("SELECT x FROM d ORDER BY x LIMIT 1"), runner.sql("SELECT x FROM d ORDER BY x LIMIT 1")]
    assert (hours[0] == hours[1]) == (zone == "SYSTEM")


def test_postgresql_session_settings_do_not_change_features(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    types = {
        "t": "timestamptz",
        "d": "date",
        "u": "timestamp",
        "i": "interval",
        "f": "double precision",
        "y": "integer",
    }
    day = "2024-01-0{0}"
    rows = [
        (f"{day} 10:00:00.5+00", day, f"{day} 10:00:00.5", "-1 day {0}:00", f"0.{k % 7}12345678901234", k % 7)
        for k in range(ROWS)
    ]
    rows = [tuple(v.format(k % 7 + 1) if isinstance(v, str) else v for v in row) for k, row in enumerate(rows)]
    make(runner, "d", types, rows)
    expected = trained(runner)["features"]
    agent = StandInAgent(tmp_path, postgresql_dsn)
    train = {"kind": "train", "select": "SELECT * FROM d", "label": "y", "estimator": "xgboost.gbtree", "model": "m"}
    train |= {"sql": "SELECT …", "output": str(tmp_path / "m")}
    predict = {"kind": "predict", "select": "SELECT * FROM d", "model": "m", "model_dir": str(tmp_path / "m")}
    predict |= {"result_table": "d_out", "result_column": "p"}
    settings = ("SET intervalstyle TO iso_8601", "SET extra_float_digits TO -5")
    shown = "SELECT DATE '2024-01-31', current_setting('extra_float_digits')"
    for style, printed in (("German", "31.01.2024"), ("SQL, DMY", "31/01/2024"), ("Postgres, MDY", "01-31-2024")):
        (tmp_path / "m/model_meta.json").unlink()
        replay = (f"SET datestyle TO '{style}'", *settings)
        agent.run(train, replay=replay).succeeded()
        assert meta(runner)["features"] == expected
        agent.run(predict, replay=replay).succeeded()
        # The user's own statements keep the settings.
        assert agent.run(shown, replay=replay).succeeded().rows() == [(printed, "-5")]
        assert accuracy(runner, "d_out") == accuracy(runner) == 1
        assert runner.sql(
            "SELECT count(*) FROM (SELECT t, d, u, i, f FROM d_out EXCEPT SELECT t, d, u, i, f FROM d) a"
        ) == [("0",)]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "America/New_York"])
@pytest.mark.parametrize("odd", ["0044-03-15 10:30:00+00 BC", "0001-12-31 23:00:00+00 BC", "12024-01-01 00:00:00+00"])
def test_timestamp_outside_python_calendar_is_a_date(postgresql_dsn: str, tmp_path: Path, zone: str, odd: str) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    # Before standard time, offsets have seconds.
    rows = [(odd if k % 2 else f"{1850 + k}-01-{k % 28 + 1:02} 10:00:00+00", k % 2) for k in range(ROWS)]
    runner.sql(f"ALTER ROLE u SET timezone TO '{zone}'")
    try:
        make(runner, "d", {"x": "timestamptz", "y": "integer"}, rows)
        described = column(trained(runner), "x")
        assert (described["taken_as"], described["distinct"], described["missing"]) == ("date, in days", 51, 0)
        assert accuracy(runner) == 1
        ((days,),) = runner.sql(f"SELECT (EXTRACT(epoch FROM timestamptz '{odd}') / 86400)::float8")
        ((printed,),) = runner.sql(f"SELECT (timestamptz '{odd}')::text")
    finally:
        runner.sql("ALTER ROLE u RESET timezone")
    for text in (odd, printed):
        moment = micros(text)
        assert moment is not None
        assert moment / MICROS_PER_DAY == float(days)
        # As a category, it does not depend on the time zone.
        assert text_of(Kind.TIMESTAMP_UTC, text) == str(moment)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1970-01-02", 1),
        ("1970-01-01 12:00", 0.5),
        ("1970-01-01T00:00:00+06:00", -0.25),
        ("1970-01-01 00:00:00 +06", -0.25),
        ("1970-01-01 00:00:00+00:09:21", -561 / 86400),
        ("1969-12-31 23:59:59.999999Z", -1e-6 / 86400),
        ("2000-02-29", 11016),
        # PostgreSQL's result for these, in days.
        ("0001-01-01", -719162),
        ("0001-12-31 BC", -719163),
        ("0044-03-15 BC", -735160),
        ("4714-11-24 BC", -2440588),
        ("9999-12-31", 2932896),
        ("12024-02-29", 3672207),
        ("0000-00-00", None),
        ("0000-01-01", None),
        ("2023-02-29", None),
        ("2024-13-01", None),
        ("2024-01-01 24:30", None),
        ("300000-01-01", None),
        ("2024-01-01 BC 10:00", None),
    ],
)
def test_dates_are_read_as_days(text: str, days: float | None) -> None:
    found = micros(text)
    assert (found is None) == (days is None)
    if found is not None and days is not None:
        assert found == round(days * MICROS_PER_DAY)


def test_days_equal_those_of_postgresql(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    found = runner.sql(
        "SELECT d::text, (d - date '1970-01-01')::text FROM (SELECT (date '4713-01-01 BC' + 9973 * i) AS d "
        "FROM generate_series(0, 3000) AS i) AS q"
    )
    assert [micros(text) for text, _ in found] == [int(days) * MICROS_PER_DAY for _, days in found]


def test_infinity_in_one_batch_does_not_change_categories(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    rows = [(f"2024-01-01 10:00:00.{k % 4}5", k % 4) for k in range(5000)]
    make(runner, "d", {"x": "timestamp", "y": "integer"}, rows)
    runner.sql("INSERT INTO d VALUES ('infinity', 0)")
    trained(runner, columns={"feature_columns": [call("INDICATOR", call("CATEGORY_HASH", "x", 10_000))]})
    assert accuracy(runner) > 0.999
    # It is at the end of the first batch only, or of the last.
    document = trained(runner, select="y AS z, x AS y", attributes={"objective": "multi:softprob"})
    assert document["classes"] == sorted(["infinity", *(f"2024-01-01 10:00:00.{k}50000" for k in range(4))])


WORDS = (
    ["true", "t", "Yes", "Y", "on", "tru", " y ", "1"],
    ["FALSE", "f", "no", "n", "OFF", "of", "fals", "0"],
)


def test_boolean_words_are_those_of_postgresql(sqlite_runner: Runner, postgresql_dsn: str, tmp_path: Path) -> None:
    there = Runner(postgresql_dsn, tmp_path)
    rows = [(WORDS[k % 2][k % 8], WORDS[k % 2][k % 7]) for k in range(300)]
    found = []
    for runner in (sqlite_runner, there):
        make(runner, "d", {"x": "boolean", "y": "boolean"}, rows)
        document = trained(runner)
        assert (document["classes"], feature(document, "x")["boolean"]) == ([False, True], True)
        runner.run(kind="predict", select="SELECT x FROM d", result_table="d_out", result_column="p", model_dir="m")
        found.append([row[0] in ("1", "True") for row in runner.sql("SELECT p FROM d_out")])
    assert found[0] == found[1]
    assert set(found[0]) == {False, True}
    for word in BOOLEANS:
        assert there.sql(f"SELECT '{word}'::boolean") == [(str(BOOLEANS[word]),)]
    for word in ("o", "maybe", "yess", "2"):
        with pytest.raises(UserError):
            there.sql(f"SELECT '{word}'::boolean")
        assert word not in BOOLEANS


@pytest.mark.parametrize("word", ["maybe", "o", "ja"])
def test_word_that_is_not_a_boolean_is_an_error(sqlite_runner: Runner, word: str) -> None:
    rows = [("yes" if k % 2 else "no", k % 2) for k in range(60)]
    make(sqlite_runner, "d", {"x": "boolean", "y": "integer"}, rows)
    trained(sqlite_runner)
    rows[6] = (word, 1)
    make(sqlite_runner, "d", {"x": "boolean", "y": "integer"}, rows)
    said = rf"row 7: '{word}' is not a boolean \(true, yes, on, 1 or false, no, off, 0\)"
    rejects(sqlite_runner, f"^column x, {said}")
    rejects(sqlite_runner, f"^label x, {said}", select="y AS z, x", label="x")
    with pytest.raises(UserError, match=f"^column x, {said}"):
        sqlite_runner.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")


def test_bits_are_read_as_a_number(all_runners: list[Runner]) -> None:
    for runner in all_runners[1:]:
        make(runner, "d", {"x": "bit(4)", "y": "integer"}, [])
        runner.sql(*(f"INSERT INTO d VALUES (b'{k % 16:04b}', {int(k % 16 > 9)})" for k in range(48)))
        document = trained(runner)
        assert (column(document, "x")["taken_as"], feature(document, "x")["kind"]) == ("number", "dense")
        assert accuracy(runner) == 1


def test_money_is_rejected_with_advice(postgresql_dsn: str, tmp_path: Path) -> None:
    runner = Runner(postgresql_dsn, tmp_path)
    make(runner, "d", {"x": "money", "z": "integer", "y": "integer"}, [(f"{k * 1000}.50", k, k % 2) for k in range(60)])
    said = (
        "^{}cannot read column {} as a number: its type is money, which PostgreSQL prints in the format of its "
        r"locale; write CAST\({} AS numeric\) AS {} in the select$"
    )
    rejects(runner, said.format("", *"xxx"))
    rejects(runner, said.format("", *"xxx"), select="y, x", label="x")
    for spelled in (call("DENSE", "x"), call("BUCKET", "x", [1, 2]), call("CATEGORY_ID", "x", 5)):
        rejects(runner, said.format("", *"xxx"), columns={"feature_columns": [spelled]})
    cast = "SELECT CAST(x AS numeric) AS x, z, y FROM d"
    validation = {"validation.select": "SELECT * FROM d"}
    runner.train(cast, "y")
    assert column(meta(runner), "x")["taken_as"] == "number"
    with pytest.raises(UserError, match=said.format("validation.select: ", *"xxx")):
        runner.train(cast, "y", attributes=validation)
    for kind in ("predict", "evaluate", "explain"):
        with pytest.raises(UserError, match=said.format("", *"xxx")):
            runner.run(
                kind=kind, select="SELECT * FROM d", label="y", model_dir="m", result_table="d_out", result_column="p"
            )
    # It can be read as a category.
    trained(runner, columns={"feature_columns": [call("CATEGORY_HASH", "x", 100), {"ident": "z"}]})


def test_money_in_sqlite_is_a_number(sqlite_runner: Runner) -> None:
    make(sqlite_runner, "d", {"x": "MONEY", "y": "integer"}, [(k * 1000.5, k % 2) for k in range(60)])
    assert column(trained(sqlite_runner), "x")["taken_as"] == "number"


@pytest.mark.parametrize("declared", ["DATE", "DATETIME", "timestamp"])
def test_non_iso_date_is_an_error(sqlite_runner: Runner, declared: str) -> None:
    how = "is not a date; write dates as 2024-12-31 or 2024-12-31 23:59:59"
    rows: list[tuple[Any, int]] = [(f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(60)]
    make(sqlite_runner, "good", {"x": declared, "y": "integer"}, rows)
    trained(sqlite_runner, table="good")
    others = [("01/02/2024", y) for _, y in rows]
    make(sqlite_runner, "d", {"x": declared, "y": "integer"}, others)
    rejects(sqlite_runner, f"^column x, row 1: '01/02/2024' {how}")
    with pytest.raises(UserError, match=f"^column x, row 1: '01/02/2024' {how}"):
        sqlite_runner.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")
    rows[6] = ("01/02/2024", 0)
    make(sqlite_runner, "d", {"x": declared, "y": "integer"}, rows)
    rejects(
        sqlite_runner, "^column x, row 7: '01/02/2024' is not a date, as 59 of 60 values are; write dates as 2024-12-31"
    )
    rows = [(k, k % 2) for k in range(60)]
    for odd in ("2024-01-01", "01/02/2024"):
        rows[6] = (odd, 0)
        for ordered in (rows, rows[::-1]):
            make(sqlite_runner, "d", {"x": declared, "y": "integer"}, ordered)
            rejects(
                sqlite_runner,
                f"^column x, row [0-9]+: '{odd}' is not a number; write dates as .*, or as numbers, in all",
            )


def test_number_among_dates_is_an_error(runner: Runner) -> None:
    rows = [(f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(60)]
    make(runner, "d", {"x": "text", "y": "integer"}, rows)
    trained(runner)
    make(runner, "d", {"x": "text", "y": "integer"}, [*rows, ("20240105", 1)])
    with pytest.raises(UserError, match=r"^column x, row 61: '20240105' is not a date; write dates as"):
        accuracy(runner)


def test_column_names_that_differ_in_case_only_are_rejected(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k, k % 2) for k in range(60)])
    quoted = "`X`" if database(runner) == "mysql" else '"X"'
    trained(runner, select="x, y")
    written = {"kind": "predict", "select": f"SELECT x, -x AS {quoted} FROM d", "model_dir": "m"}
    if database(runner) == "postgresql":
        runner.run(result_table="d_out", result_column="p", **written)
        assert runner.sql('SELECT count(*) FROM d_out WHERE x = -"X"') == [("60",)]
        return
    said = (
        "^cannot write table d_out: the names of columns x and X differ in case only, .* have both; rename one with AS$"
    )
    with pytest.raises(UserError, match=said):
        runner.run(result_table="d_out", result_column="p", **written)
    train = {"kind": "train", "estimator": "xgboost.gbtree", "label": "y", "select": "SELECT * FROM d", "output": "m"}
    later = {**written, "index": 1, "model": "m", "result_table": "d_out", "result_column": "p"}
    failure = StandInAgent(runner.folder, runner.dsn).run({**train, "model": "m"}, ahead=[later]).failure()
    assert re.match(rf"statement 2 \(TO PREDICT\): {said[1:]}", failure.message), failure.message
    # The result column replaces both.
    runner.run(result_table="d_out", result_column="x", **written)


def test_errors_of_validation_select_have_its_name(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "s": "text", "y": "integer"}, [(k, "ab"[k % 2], k % 2) for k in range(60)])
    make(runner, "t", {"x": "text", "s": "text", "y": "integer"}, [("seven", "ab"[k % 2], k % 2) for k in range(60)])
    selects = {
        "SELECT * FROM no_such_table": "",
        "SELEC * FROM d": "",
        "SELECT x, y FROM d": "column s does not exist",
        "SELECT x, x, s, y FROM d": "column x occurs 2 times in the select",
        "SELECT * FROM t": "column x, row 1: 'seven' is not a number",
        "SELECT x, s, 'no' AS y FROM d": "label y, row 1: 'no' is not a class of the model, which has 0, 1",
        "SELECT * FROM d WHERE x < 0": "the select returned no rows",
        "SELECT x, s, NULL AS y FROM d": "label y is NULL in 60 of 60 row",
    }
    for select, said in selects.items():
        rejects(runner, f"^validation.select: {said}", attributes={"validation.select": select})
