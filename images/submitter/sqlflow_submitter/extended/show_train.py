"""SHOW TRAIN: the statement that trained a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlflow_submitter.extended.computed_rows import send_rows
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement

if TYPE_CHECKING:
    from sqlflow_submitter.database import Database


def show_train(statement: Statement, database: Database | None, channel: StatementChannel) -> None:
    """Sends one row: the model's name and its TRAIN statement."""
    meta = ModelMeta.load(Path(statement.model_dir))
    send_rows(["Model", "Train Statement"], [[statement.model], [meta.original_sql.strip()]], database, channel)
