"""Optional output of EVALUATE and PREDICT."""

from typing import Any

import pytest
from agent import Run
from conftest import Runner
from tables import database, make, trained

from sqlflow_submitter.errors import UserError


def test_evaluate_without_into_sends_metrics_under_the_given_names(
    runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k, int(k > 50)) for k in range(100)])
    trained(runner)
    capsys.readouterr()
    attributes = {"validation.metrics": "accuracy_score, f1"}
    fields = {"kind": "evaluate", "select": "SELECT * FROM d", "label": "y", "model": "m", "model_dir": "m"}
    run = runner.run(attributes=attributes, **fields)
    assert run.rows() == [("accuracy_score", "1.0"), ("f1", "1.0")]
    # The client shows the result set as a table.
    assert capsys.readouterr().out.endswith("\nprecision, recall and f1 are for class 1\n")
    runner.run(attributes=attributes, result_table="d_scores", **fields)
    assert runner.sql("SELECT metric FROM d_scores ORDER BY metric") == [("accuracy_score",), ("f1",)]


def test_predict_writes_probabilities(runner: Runner) -> None:
    names = ["Yes", "yes", "A b"]
    rows = [(k, names[k // 40]) for k in range(120)]
    make(runner, "d", {"x": "integer", "y": "text"}, rows)
    trained(runner)

    def predict(select: str = "SELECT x FROM d", **fields: Any) -> Run:
        attributes = {"predict.probabilities": True}
        return runner.run(
            kind="predict",
            select=select,
            result_table="d_out",
            result_column="y",
            model="m",
            model_dir="m",
            attributes=attributes,
            **fields,
        )

    predict()
    p = (lambda name: f"`{name}`") if database(runner) == "mysql" else (lambda name: f'"{name}"')
    made = ["p_A b", "p_Yes", "p_yes_2"]
    if database(runner) == "postgresql":
        made = [name.lower() for name in made]
    listed = ", ".join(f"min({p(name)}), max({p(name)})" for name in made)
    values = [float(value) for value in runner.sql(f"SELECT {listed} FROM d_out")[0]]
    assert min(values) > 0
    assert max(values) < 1
    total = " + ".join(map(p, made))
    assert runner.sql(f"SELECT count(*) FROM d_out WHERE abs({total} - 1) < 0.000001") == [("120",)]
    assert runner.sql(f"SELECT count(*) FROM d_out WHERE y = 'A b' AND {p(made[0])} > 0.5") == [("40",)]
    with pytest.raises(UserError, match=r"the select already has a column [pP]_[yY]es"):
        predict(f"SELECT x, 1 AS {p(made[1])} FROM d")
    trained(runner, attributes={"objective": "reg:squarederror"}, select="x, x AS y")
    with pytest.raises(UserError, match=r"predict\.probabilities: model m has none: its objective is reg:squarederror"):
        predict()


def test_probabilities_of_two_classes(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "boolean"}, [(k, k > 50) for k in range(100)])
    trained(runner)
    attributes = {"predict.probabilities": True}
    runner.run(
        kind="predict",
        select="SELECT x FROM d",
        result_table="d_out",
        result_column="y",
        model_dir="m",
        attributes=attributes,
    )
    assert runner.sql("SELECT count(*) FROM d_out WHERE p_true > 0.5 AND p_false < 0.5 AND x > 50") == [("49",)]


def test_quoted_parts_of_a_result_table_are_taken_as_they_are(runner: Runner) -> None:
    make(runner, "d", {"x": "integer", "y": "integer"}, [(k, int(k > 50)) for k in range(100)])
    trained(runner)
    quote = "`" if database(runner) == "mysql" else '"'
    table, column = (f"{quote}{name}{quote}" for name in ("My order", "Class of it"))
    fields = {"kind": "predict", "select": "SELECT x FROM d", "model": "m", "model_dir": "m"}
    # The second one replaces what the first one has made.
    for _ in range(2):
        runner.run(result_table='"My order"', result_column='"Class of it"', **fields)
        assert runner.sql(f"SELECT count({column}) FROM {table}") == [("100",)]
    runner.sql(f"DROP TABLE {table}")
