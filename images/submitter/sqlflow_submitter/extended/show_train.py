"""SHOW TRAIN: the statement that trained a model."""

from __future__ import annotations

from pathlib import Path

from sqlflow_submitter.model import ModelMeta
from sqlflow_submitter.proto.sqlflow.v1.data_pb2 import Column, Head, Rows
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement


def show_train(statement: Statement, channel: StatementChannel) -> None:
    """Sends one row: the model's name and its whole TRAIN statement."""
    meta = ModelMeta.load(Path(statement.model_dir))
    head = Head(column_names=["Model", "Train Statement"])
    for _ in head.column_names:
        head.column_types.add()
    channel.head(head)
    rows = Rows(count=1)
    for text in (statement.model, meta.original_sql.strip()):
        column = Column()
        column.strings.values.append(text)
        rows.columns.append(column)
    channel.rows(rows)
