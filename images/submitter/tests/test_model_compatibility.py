"""Data must fit a trained model, also one of an older format."""

import json

import pytest
from conftest import Runner, with_iris_model
from tables import accuracy, database, make, meta, trained

from sqlflow_submitter.errors import SubmitterError, UserError


def test_data_must_fit_the_model(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"x": "text", "colour": "text", "day": "text", "y": "integer"}
    rows = [(str(k), ("red", "blue")[k % 2], f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(300)]
    make(runner, "d", columns, rows)
    trained(runner)
    make(runner, "d", columns, [*rows, ("", "amber", "infinity", 1), ("7", "amber", "2024-01-01", 1)])
    for statement in (
        {"kind": "predict", "result_table": "d_out", "result_column": "y"},
        {"kind": "evaluate", "label": "y"},
        {"kind": "explain"},
    ):
        capsys.readouterr()
        runner.run(select="SELECT * FROM d", model="m", model_dir="m", **statement)
        said = capsys.readouterr().out
        unseen = "value(s) taken as missing: value that the model has not seen"
        assert f"warning: column colour: 2 {unseen}, first 'amber' in row 301" in said
        assert "warning: column x: 1 value(s) taken as missing: empty text" in said
        assert "warning: column day: 1 value(s) taken as missing: infinite value, first 'infinity' in row 301" in said
    make(runner, "d", columns, [*rows, ("seven", "red", "2024-01-01", 1)])
    with pytest.raises(UserError, match=r"^column x, row 301: 'seven' is not a number"):
        runner.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")
    make(runner, "d", columns, [*rows, ("7", "red", "yesterday", 1)])
    with pytest.raises(UserError, match=r"^column day, row 301: 'yesterday' is not a date"):
        runner.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")


def test_model_of_format_1_is_readable(runner: Runner) -> None:
    make(
        runner,
        "d",
        {"x": "number", "day": "date", "y": "integer"},
        [(k, f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(99)],
    )
    document = trained(runner)
    for name in ("columns", "objective_reason", "weights_sha256"):
        del document[name]
    for found in document["features"]:
        for name in ("form", "scale"):
            found.pop(name, None)
    document["format"] = 1
    before = accuracy(runner)
    (runner.folder / "m/model_meta.json").write_text(json.dumps(document))
    if database(runner) != "sqlite":
        # In format 1, a date was a vocabulary of texts.
        assert accuracy(runner) == before


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_changed_weights_are_refused(sqlite_runner: Runner, place: float) -> None:
    iris = with_iris_model(sqlite_runner)
    weights = iris.folder / "m/model.ubj"
    content = bytearray(weights.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    for changed in (bytes(content), bytes(content[: int(len(content) * place)])):
        weights.write_bytes(changed)
        for statement in (
            {"kind": "predict", "result_table": "outcome", "result_column": "name", "model_dir": "m"},
            {"kind": "explain", "model_dir": "m"},
            {"kind": "train", "label": "name", "estimator": "xgboost.gbtree", "pretrained": "m", "output": "n"},
        ):
            with pytest.raises(SubmitterError, match=r"model\.ubj was changed after the training, its SHA-256 is "):
                iris.run(select="SELECT * FROM iris", model="m", **statement)
    weights.unlink()
    with pytest.raises(SubmitterError, match=r"cannot read the model in .*FileNotFoundError"):
        iris.predict()


def test_continued_training_shows_the_columns(runner: Runner) -> None:
    rows = [(k, ("red", "blue")[k % 2], k % 2) for k in range(100)]
    make(runner, "d", {"x": "integer", "colour": "text", "y": "integer"}, rows)
    trained(runner)
    runner.sql("UPDATE d SET colour = NULL WHERE x < 10")
    before = {column["name"]: column["taken_as"] for column in meta(runner)["columns"]}
    document = trained(runner, pretrained="m")
    assert {column["name"]: column["taken_as"] for column in document["columns"]} == before
    assert [column["missing"] for column in document["columns"]] == [0, 0, 10]
    assert document["objective_reason"] == "the earlier model has it"
