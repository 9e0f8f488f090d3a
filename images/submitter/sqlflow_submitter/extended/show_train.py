"""SHOW TRAIN: the statement that trained a model."""

from __future__ import annotations

from pathlib import Path

from sqlflow_submitter.extended.computed_rows import send_rows
from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement


def show_train(statement: Statement, channel: StatementChannel) -> None:
    """Sends one row: the model's name and its TRAIN statement."""
    meta = ModelMeta.load(Path(statement.model_dir))
    send_rows(["Model", "Train Statement"], [[statement.model], [meta.original_sql.strip()]], channel)
