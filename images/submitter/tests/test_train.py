"""TRAIN. Most statements run in the tests' process."""

import json
import re
from typing import Any

import pytest
import xgboost
from agent import StandInAgent
from conftest import Runner
from expressions import call
from iris import COLUMNS, FEATURES, iris_statements

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.model import WEIGHTS, ModelMeta

IRIS = f"SELECT {FEATURES}, class FROM iris"


def numbers(runner: Runner, rows: int = 400) -> None:
    """Creates the table `numbers`: y = 3a - 2b + noise; colour is a category; big is whether y > 0."""
    values = []
    for i in range(rows):
        a, b = i % 17, i % 13
        y = 3 * a - 2 * b
        values.append(f"({i}, {a}, {b}, {y}, '{('red', 'green', 'blue')[i % 3]}', {int(y > 12)})")
    runner.sql(
        "DROP TABLE IF EXISTS numbers",
        "CREATE TABLE numbers (id int, a int, b int, y int, colour varchar(9), big int)",
        f"INSERT INTO numbers VALUES {', '.join(values)}",
    )


def meta(runner: Runner, name: str = "m") -> ModelMeta:
    return ModelMeta.load(runner.folder / name)


def test_iris_is_trained_through_the_agent(agent: StandInAgent, runner: Runner) -> None:
    runner.sql(*iris_statements())
    run = agent.run(
        {
            "kind": "train",
            "sql": "SELECT … TO TRAIN …",
            "select": IRIS,
            "estimator": "xgboost.gbtree",
            "attributes": {
                "objective": "multi:softmax",
                "num_class": 3,
                "train.num_boost_round": 5,
                "validation.select": f"{IRIS} WHERE sepal_width > 3",
            },
            "columns": {},
            "label": "class",
            "model": "m",
            "output": "outputs/m",
            "pretrained": None,
        }
    ).succeeded()
    assert run.kinds() == ["started", *["metrics"] * 5, "ended"]
    measured = run.payloads("metrics")
    assert [metrics.step for metrics in measured] == [1, 2, 3, 4, 5]
    assert [metric.name for metric in measured[0].metrics] == ["train-mlogloss", "validate-mlogloss"]
    assert measured[-1].metrics[0].value < measured[0].metrics[0].value
    progress = {(frame.phase, frame.done, frame.total, frame.unit) for frame in run.payloads("progress")}
    assert {("load", 150, 150, "rows"), ("train", 5, 5, "rounds")} <= progress
    # Each round has a line, and the progress bar must show the same round.
    assert [frame.done for frame in run.payloads("progress") if frame.phase == "train"] == [1, 2, 3, 4, 5]
    assert "round 5/5  train-mlogloss=" in run.stdout
    folder = agent.folder / "outputs/m"
    assert sorted(path.name for path in folder.iterdir()) == ["model.ubj", "model_meta.json"]
    document = json.loads((folder / "model_meta.json").read_text())
    assert document["original_sql"] == "SELECT … TO TRAIN …"
    assert document["select"] == IRIS
    assert document["validation_select"] == f"{IRIS} WHERE sepal_width > 3"
    assert document["class_name"] == "xgboost.gbtree"
    assert document["attributes"]["num_class"] == 3
    assert [feature["column"] for feature in document["features"]] == list(COLUMNS)
    assert document["label"] == "class"
    assert set(document["evaluation"]) == {"train-mlogloss", "validate-mlogloss"}
    assert document["created_by"].startswith("sqlflow_submitter ")


def rejects(runner: Runner, message: str, select: str = IRIS, label: str = "class", **fields: Any) -> None:
    with pytest.raises(UserError, match=message):
        runner.train(select, label, **fields)
    assert not (runner.folder / "m").exists()


def test_unknown_names_are_reported_before_data_is_loaded(runner: Runner) -> None:
    runner.sql(*iris_statements())
    # A select that fails when its first row is computed. It is described, not executed.
    late = f"SELECT {FEATURES}, class FROM iris ORDER BY sepal_length / (SELECT count(*) - 150 FROM iris)"
    rejects(runner, r"^label clas does not exist; did you mean class\? \(the select has: sepal_length", late, "clas")
    columns = {"feature_columns": [{"ident": "sepal_lenght"}]}
    rejects(runner, r"^column sepal_lenght does not exist; did you mean sepal_length", late, columns=columns)
    rejects(
        runner,
        "validation.select: column petal_length does not exist",
        late,
        attributes={"validation.select": "SELECT sepal_length, sepal_width, class FROM iris"},
        columns={"feature_columns": [{"ident": "petal_length"}]},
    )
    rejects(runner, "objective multi:sofmax does not exist", late, attributes={"objective": "multi:sofmax"})
    rejects(runner, "attribute max_dept does not exist", late, attributes={"max_dept": 1})
    rejects(runner, "estimator DNNClassifier is not supported yet", late, estimator="DNNClassifier")
    rejects(runner, "FOR deep", late, columns={"deep": [{"ident": "sepal_length"}]})
    rejects(runner, "no_such_table", "SELECT * FROM no_such_table")
    rejects(runner, "times in the select", "SELECT a.*, b.class FROM iris a, iris b")
    rejects(runner, "the select returned no rows", f"{IRIS} WHERE class > 5")


def test_rejected_statement_imports_no_large_library(sqlite_agent: StandInAgent, sqlite_runner: Runner) -> None:
    sqlite_runner.sql(*iris_statements())
    (sqlite_agent.folder / "numpy.py").write_text("raise SystemExit('numpy was imported')")
    statement = {"kind": "train", "select": IRIS, "estimator": "xgboost.gbtree", "label": "clas", "output": "m"}
    failure = sqlite_agent.run(statement).failure()
    assert failure.user_error
    assert failure.message.startswith("label clas does not exist; did you mean class?")


def test_null_labels_are_an_error_with_their_count(sqlite_runner: Runner) -> None:
    sqlite_runner.sql(*iris_statements(), "UPDATE iris SET class = NULL WHERE sepal_length > 7.5")
    rejects(sqlite_runner, r"label class is NULL in 6 of 150 row\(s\)")


def test_text_labels_are_classes(runner: Runner) -> None:
    runner.sql(*iris_statements())
    runner.train(f"SELECT {FEATURES}, name FROM iris", "NAME", attributes={"objective": "multi:softprob"})
    assert meta(runner).classes == ["setosa", "versicolor", "virginica"]
    assert meta(runner).label == "name"


def test_objective_is_derived_from_the_label(sqlite_runner: Runner) -> None:
    runner = sqlite_runner
    runner.sql(*iris_statements())
    runner.train(f"SELECT {FEATURES}, name FROM iris", "name", "a")
    runner.train(f"SELECT {FEATURES}, name FROM iris WHERE class < 2", "name", "b")
    runner.train(f"SELECT {FEATURES} FROM iris", "petal_width", "c")
    found = [(meta(runner, name).objective, meta(runner, name).classes) for name in "abc"]
    assert found == [
        ("multi:softprob", ["setosa", "versicolor", "virginica"]),
        ("binary:logistic", ["setosa", "versicolor"]),
        ("reg:squarederror", None),
    ]


def test_class_numbers_need_not_begin_at_zero(sqlite_runner: Runner) -> None:
    sqlite_runner.sql(*iris_statements(), "UPDATE iris SET class = class * 10 - 5")
    sqlite_runner.train(IRIS, "class", attributes={"objective": "multi:softmax"})
    assert meta(sqlite_runner).classes == [-5, 5, 15]


def test_classes_must_fit_the_objective(sqlite_runner: Runner) -> None:
    sqlite_runner.sql(*iris_statements())
    rejects(sqlite_runner, "needs two classes, label class has 3: 0, 1, 2", attributes={"objective": "binary:logistic"})
    attributes = {"objective": "multi:softmax", "num_class": 2}
    rejects(sqlite_runner, "num_class is 2, but label class has 3 classes", attributes=attributes)
    attributes = {"objective": "multi:softmax"}
    rejects(sqlite_runner, "one class only", f"{IRIS} WHERE class = 1", attributes=attributes)
    rejects(sqlite_runner, "is not a class", label="petal_width", attributes=attributes)
    rejects(
        sqlite_runner,
        "label name, row 1: 'setosa' is not a number",
        f"SELECT {FEATURES}, name FROM iris",
        "name",
        attributes={"objective": "reg:squarederror"},
    )


def test_xgboost_error_is_reported_in_one_line(sqlite_runner: Runner) -> None:
    sqlite_runner.sql(*iris_statements())
    attributes = {"objective": "reg:logistic", "base_score": 0.5}
    rejects(sqlite_runner, r"^xgboost: label must be in .0, 1.", label="petal_length", attributes=attributes)


@pytest.mark.parametrize("booster", ["gbtree", "gblinear", "dart"])
def test_regression_learns(sqlite_runner: Runner, booster: str) -> None:
    numbers(sqlite_runner)
    run = sqlite_runner.train(
        "SELECT a, b, y FROM numbers",
        "y",
        estimator=f"xgboost.{booster}",
        attributes={"objective": "reg:squarederror", "eta": 0.5, "train.num_boost_round": 60},
    )
    first, *_, last = [metrics.metrics[0].value for metrics in run.payloads("metrics")]
    assert last < first / 10


def test_attribute_without_effect_is_reported(sqlite_runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(sqlite_runner)
    attributes = {"max_depth": 3, "eta": 0.5, "max_leaves": 7, "train.num_boost_round": 1}
    for booster, warned in (("gblinear", True), ("gbtree", False)):
        sqlite_runner.train("SELECT a, b, y FROM numbers", "y", estimator=f"xgboost.{booster}", attributes=attributes)
        assert ("warning: gblinear ignores: max_depth, max_leaves\n" in capsys.readouterr().out) == warned


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_derived_vocabulary_distinguishes_colours(sqlite_runner: Runner, booster: str) -> None:
    numbers(sqlite_runner)
    run = sqlite_runner.train(
        "SELECT colour, CASE colour WHEN 'red' THEN 5 WHEN 'green' THEN -5 ELSE 20 END AS y FROM numbers",
        "y",
        estimator=f"xgboost.{booster}",
        attributes={"eta": 1, "lambda": 0, "train.num_boost_round": 40},
    )
    assert meta(sqlite_runner).features[0].vocabulary == ["blue", "green", "red"]
    assert run.payloads("metrics")[-1].metrics[0].value < 0.1


def test_every_feature_column_can_be_trained(runner: Runner) -> None:
    numbers(runner)
    glue = "CONCAT(a, ',', b)" if "mysql" in runner.dsn else "a || ',' || b"
    pair = "CONCAT(a, ':', b)" if "mysql" in runner.dsn else "a || ':' || b"
    columns = [
        call("DENSE", "v", 2, "COMMA"),
        call("SPARSE", "s", 20),
        call("BUCKET", "a", [5, 10]),
        call("CATEGORY_ID", "b", 13),
        call("CATEGORY_HASH", "colour", 100),
        call("INDICATOR", call("CATEGORY_HASH", "colour", 10)),
        call("CROSS", ["colour", "b"], 1000),
        {"ident": "id"},
    ]
    runner.train(
        f"SELECT id, a, b, colour, {glue} AS v, {pair} AS s, y FROM numbers",
        "y",
        columns={"feature_columns": columns},
        attributes={"train.num_boost_round": 2},
    )
    kinds = [feature.kind for feature in meta(runner).features]
    assert kinds == [
        "dense",
        "sparse",
        "bucket",
        "category_id",
        "category_hash",
        "indicator",
        "cross",
        "dense",
    ]
    table = f"(SELECT id, a, b, colour, {glue} AS v, {pair} AS s, y FROM numbers)"
    runner.run(
        kind="predict",
        select=f"SELECT * FROM {table} AS q",
        result_table="fc_out",
        result_column="p",
        model="m",
        model_dir="m",
    )
    assert runner.sql("SELECT count(*) FROM fc_out WHERE p IS NOT NULL") == [("400",)]


def test_training_is_deterministic(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner)
    attributes = {"subsample": 0.5, "colsample_bytree": 0.5, "seed": 3}
    for output in ("one", "two"):
        sqlite_runner.train("SELECT a, b, colour, y FROM numbers", "y", output, attributes=attributes)
    weights = [(sqlite_runner.folder / output / WEIGHTS).read_bytes() for output in ("one", "two")]
    assert weights[0] == weights[1]


def test_constraints_reach_the_library(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner)
    attributes = {"monotone_constraints": [0, 1], "interaction_constraints": [[0], [1]], "max_depth": 3}
    sqlite_runner.train("SELECT a, b, y FROM numbers", "y", attributes=attributes)
    # y decreases with b, but the model must not.
    predicted = "SELECT 8 AS a, 1 AS b UNION ALL SELECT 8, 11"
    sqlite_runner.run(kind="predict", select=predicted, result_table="p", result_column="y", model_dir="m")
    low, high = (float(y) for (y,) in sqlite_runner.sql("SELECT y FROM p ORDER BY b"))
    assert low <= high


def test_each_epoch_and_batch_boosts_again(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner)
    attributes = {"train.num_boost_round": 3, "train.epoch": 2, "train.batch_size": 150}
    run = sqlite_runner.train("SELECT a, b, y FROM numbers", "y", attributes=attributes)
    # Three batches (150, 150, 100) in each of two epochs.
    assert [metrics.step for metrics in run.payloads("metrics")] == list(range(1, 19))
    assert run.payloads("progress")[-1].done == 18


def test_training_stops_early(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner)
    run = sqlite_runner.train(
        "SELECT a, b, y FROM numbers",
        "y",
        attributes={
            "train.num_boost_round": 500,
            "train.early_stopping_rounds": 3,
            "validation.select": "SELECT a, b, -y AS y FROM numbers",
        },
    )
    rounds = run.payloads("metrics")
    assert len(rounds) < 500
    best = min(metrics.metrics[1].value for metrics in rounds)
    assert meta(sqlite_runner).evaluation["validate-rmse"] == best
    kept = xgboost.Booster(model_file=sqlite_runner.folder / "m" / WEIGHTS).num_boosted_rounds()
    assert rounds[kept - 1].metrics[1].value == best
    # Sent again, to mark the kept round in the curves.
    assert [(it.step, it.metrics[1].value) for it in rounds if it.kept] == [(kept, best)]


def test_using_continues_the_earlier_model(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner)
    select = "SELECT a, b, colour, y FROM numbers"
    attributes = {"train.num_boost_round": 5}
    before = sqlite_runner.train(select, "y", "m0", attributes=attributes)
    after = sqlite_runner.train(select, "y", "m1", attributes=attributes, pretrained="m0")
    last, first = before.payloads("metrics")[-1].metrics[0].value, after.payloads("metrics")[0].metrics[0].value
    assert first < last
    whole = sqlite_runner.train(select, "y", "m2", attributes={"train.num_boost_round": 10})
    assert after.payloads("metrics")[-1].metrics[0].value == pytest.approx(
        whole.payloads("metrics")[-1].metrics[0].value, rel=1e-3
    )
    # A text keeps its code. A text that the earlier model has not seen stays unknown.
    amber = "SELECT a, b, CASE colour WHEN 'blue' THEN 'amber' ELSE colour END AS colour, y FROM numbers"
    sqlite_runner.train(amber, "y", "m3", pretrained="m0")
    assert meta(sqlite_runner, "m3").features[2].vocabulary == ["blue", "green", "red"]
    rejects(
        sqlite_runner,
        "objective reg:squarederror",
        select,
        "y",
        pretrained="m0",
        attributes={"objective": "count:poisson"},
    )
    rejects(
        sqlite_runner,
        "other columns: a, b, colour",
        select,
        "y",
        pretrained="m0",
        columns={"feature_columns": [{"ident": "a"}]},
    )


def test_number_of_printed_rounds_is_bounded(sqlite_agent: StandInAgent, sqlite_runner: Runner) -> None:
    numbers(sqlite_runner, 50)
    run = sqlite_agent.run(
        {
            "kind": "train",
            "select": "SELECT a, y FROM numbers",
            "estimator": "xgboost.gbtree",
            "label": "y",
            "attributes": {"train.num_boost_round": 1000, "max_depth": 1},
            "output": "m",
        }
    ).succeeded()
    assert len(run.payloads("metrics")) == 1000
    printed = [line for line in run.stdout.splitlines() if line.startswith("round ")]
    assert 40 < len(printed) < 60
    assert printed[0].startswith("round 1/1000 ")
    assert printed[-1].startswith("round 1000/1000 ")


def test_missing_model_folder_is_reported(sqlite_runner: Runner) -> None:
    numbers(sqlite_runner, 50)
    with pytest.raises(Exception, match="cannot read the model"):
        sqlite_runner.train("SELECT a, y FROM numbers", "y", pretrained="nowhere")


def test_later_statements_are_checked_before_the_first_trains(agent: StandInAgent, runner: Runner) -> None:
    runner.sql(*iris_statements(), "DROP TABLE IF EXISTS precious", "CREATE TABLE precious (a INT)")
    train = {"kind": "train", "select": IRIS, "estimator": "xgboost.gbtree", "label": "class", "model": "m"}
    first = {**train, "output": "outputs/m", "pretrained": None}
    use = {"select": "SELECT * FROM iris", "model": "m"}
    good = [
        {"index": 1, "kind": "predict", **use, "result_table": "outcome", "result_column": "p"},
        {"index": 2, "kind": "evaluate", **use, "label": "class", "result_table": "outcome_2"},
        {"index": 3, "kind": "explain", **use, "result_table": None},
        {"index": 4, **train, "pretrained": "inputs/other"},
        {"index": 5, "kind": "predict", **use, "model": "elsewhere", "result_table": "outcome", "result_column": "p"},
        {"index": 6, "kind": "show_train", "model": "m"},
    ]
    agent.run(first, ahead=good).succeeded()
    replaced = {**good[0], "result_table": "precious", "attributes": {"result.replace": True}}
    agent.run(first, ahead=[replaced, {**good[0], "index": 2, "result_table": "precious"}]).succeeded()
    narrow = "SELECT sepal_length FROM iris"
    for statement, message in [
        ({**good[0], "select": "SELECT * FROM irs"}, r".*irs.*; did you mean iris\?$"),
        ({**good[0], "select": narrow}, r"the model's column \w+ does not exist"),
        ({**good[1], "label": "clas"}, r"label clas does not exist; did you mean class"),
        ({**good[1], "result_table": "precious"}, r"cannot write table precious: it exists \(0 rows\)"),
        ({**train, "index": 7, "label": "clss", "pretrained": None}, r"label clss does not exist; did you mean class"),
        ({**train, "index": 7, "label": "clss", "pretrained": "inputs/m"}, r"label clss does not exist"),
        (
            {**train, "index": 7, "attributes": {"validation.select": narrow}, "pretrained": None},
            r"validation\.select: column",
        ),
    ]:
        run = agent.run(first, ahead=[statement, good[2]])
        assert run.kinds() == ["started", "failure"]
        number, kind = int(str(statement["index"])) + 1, str(statement["kind"]).upper()
        assert re.match(rf"statement {number} \(TO {kind}\): .*{message}", run.failure().message), run.failure().message
    twice = agent.run(first, ahead=[{**good[0], "select": narrow}, {**good[1], "label": "clas"}]).failure().message
    assert re.match(r"statement 2 \(TO PREDICT\): .*; statement 3 \(TO EVALUATE\): ", twice), twice
    runner.sql("DROP TABLE precious")


def test_column_omitted_in_training_is_not_required_later(agent: StandInAgent, runner: Runner) -> None:
    runner.sql(*iris_statements())
    select = f"SELECT {FEATURES}, CASE WHEN class < 0 THEN 1.5 END AS empty, class FROM iris"
    first = {"kind": "train", "select": select, "estimator": "xgboost.gbtree", "label": "class", "model": "m"}
    use = {"kind": "explain", "model": "m", "index": 1, "result_table": None}
    run = agent.run({**first, "output": "outputs/m"}, ahead=[{**use, "select": f"SELECT {FEATURES} FROM iris"}])
    run.succeeded()
    short = FEATURES.rpartition(",")[0]
    run = agent.run({**first, "output": "outputs/m"}, ahead=[{**use, "select": f"SELECT {short} FROM iris"}])
    assert "the model's column petal_width does not exist" in run.failure().message


@pytest.mark.parametrize("updater", ["grow_colmaker", "grow_histmaker", "grow_quantile_histmaker"])
def test_updater_chooses_the_data_that_it_needs(sqlite_iris: Runner, updater: str) -> None:
    """`grow_colmaker` cannot train on quantiles."""
    sqlite_iris.train(
        "SELECT sepal_length, name FROM iris", "name", attributes={"updater": updater, "objective": "multi:softprob"}
    )
