"""Creates the same tables in every database, and trains models on them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from conftest import Runner

from sqlflow_submitter.errors import UserError

TYPES = {
    "sqlite": {"boolean": "BOOLEAN", "number": "REAL", "timestamp": "DATETIME"},
    "mysql": {"boolean": "BOOLEAN", "number": "DOUBLE", "timestamp": "DATETIME(6)", "text": "VARCHAR(200)"},
    "postgresql": {"boolean": "boolean", "number": "double precision", "timestamp": "timestamp"},
}
ROWS_OF_AN_INSERT = 500


def database(runner: Runner) -> str:
    return runner.dsn.partition(":")[0]


def make(runner: Runner, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
    """Creates a table. Types are `boolean`, `integer`, `number`, `text`, `date`, `timestamp`, or the database's own."""
    types = TYPES[database(runner)]
    definitions = ", ".join(f"{name} {types.get(kind, kind)}" for name, kind in columns.items())
    runner.sql(f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} ({definitions})")
    for start in range(0, len(rows), ROWS_OF_AN_INSERT):
        part = ", ".join(f"({', '.join(map(literal, row))})" for row in rows[start : start + ROWS_OF_AN_INSERT])
        runner.sql(f"INSERT INTO {table} VALUES {part}")


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    assert not isinstance(value, float) or math.isfinite(value)
    return repr(value)


def trained(runner: Runner, table: str = "d", select: str = "*", label: str = "y", **fields: Any) -> dict[str, Any]:
    """Trains a model `m`. Returns its `model_meta.json`."""
    runner.train(f"SELECT {select} FROM {table}", label, **fields)
    return meta(runner)


def meta(runner: Runner) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((runner.folder / "m/model_meta.json").read_text())
    return document


def column(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (column for column in document["columns"] if column["name"] == name)
    return dict(found)


def feature(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (feature for feature in document["features"] if feature["column"] == name)
    return dict(found)


def accuracy(runner: Runner, table: str = "d") -> float:
    attributes = {"validation.metrics": "accuracy"}
    run = runner.run(kind="evaluate", select=f"SELECT * FROM {table}", label="y", model_dir="m", attributes=attributes)
    ((_, value),) = run.rows()
    return float(value)


def rejects(runner: Runner, message: str, **fields: Any) -> None:
    with pytest.raises(UserError, match=message):
        trained(runner, **fields)
