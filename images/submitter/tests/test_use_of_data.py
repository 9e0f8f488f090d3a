"""A trained model holds the data to what it learned."""

import json

import pytest
from conftest import Here
from data import accuracy, database, make, meta, trained

from sqlflow_submitter.errors import UserError


def test_use_holds_the_data_to_what_the_model_learned(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"x": "text", "colour": "text", "day": "text", "y": "integer"}
    rows = [(str(k), ("red", "blue")[k % 2], f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(300)]
    make(here, "d", columns, rows)
    trained(here)
    make(here, "d", columns, [*rows, ("", "amber", "infinity", 1), ("7", "amber", "2024-01-01", 1)])
    for statement in (
        {"kind": "predict", "result_table": "d_out", "result_column": "y"},
        {"kind": "evaluate", "label": "y"},
        {"kind": "explain"},
    ):
        capsys.readouterr()
        here.run(select="SELECT * FROM d", model="m", model_dir="m", **statement)
        said = capsys.readouterr().out
        unseen = "value(s) taken as missing: value that the model has not seen"
        assert f"warning: column colour: 2 {unseen}, first 'amber' in row 301" in said
        assert "warning: column x: 1 value(s) taken as missing: empty text" in said
        assert "warning: column day: 1 value(s) taken as missing: infinite value, first 'infinity' in row 301" in said
    make(here, "d", columns, [*rows, ("seven", "red", "2024-01-01", 1)])
    with pytest.raises(UserError, match=r"^column x, row 301: 'seven' is not a number"):
        here.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")
    make(here, "d", columns, [*rows, ("7", "red", "yesterday", 1)])
    with pytest.raises(UserError, match=r"^column day, row 301: 'yesterday' is not a date"):
        here.run(kind="evaluate", select="SELECT * FROM d", label="y", model_dir="m")


def test_a_model_of_the_first_format_is_still_read(here: Here) -> None:
    make(
        here,
        "d",
        {"x": "number", "day": "date", "y": "integer"},
        [(k, f"2024-01-{k % 28 + 1:02}", k % 2) for k in range(99)],
    )
    document = trained(here)
    for name in ("columns", "objective_reason"):
        del document[name]
    for found in document["features"]:
        for name in ("form", "scale"):
            found.pop(name, None)
    document["format"] = 1
    before = accuracy(here)
    (here.folder / "m/model_meta.json").write_text(json.dumps(document))
    if database(here) != "sqlite":
        # There a date was a vocabulary of texts.
        assert accuracy(here) == before


def test_going_on_from_a_model_shows_the_columns_too(here: Here) -> None:
    rows = [(k, ("red", "blue")[k % 2], k % 2) for k in range(100)]
    make(here, "d", {"x": "integer", "colour": "text", "y": "integer"}, rows)
    trained(here)
    here.sql("UPDATE d SET colour = NULL WHERE x < 10")
    before = {column["name"]: column["taken_as"] for column in meta(here)["columns"]}
    document = trained(here, pretrained="m")
    assert {column["name"]: column["taken_as"] for column in document["columns"]} == before
    assert [column["missing"] for column in document["columns"]] == [0, 0, 10]
    assert document["objective_reason"] == "as the earlier model has it"
