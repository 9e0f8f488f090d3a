"""PREDICT: writes the rows of a select and the model's predictions to a table."""

from __future__ import annotations

from sqlflow_submitter.database import Computed, Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.layout import probability_classes, result_layout
from sqlflow_submitter.extended.loading import print_warnings
from sqlflow_submitter.extended.result_table import BATCH_ROWS, check_column_case, check_result_table, table_name
from sqlflow_submitter.extended.trained_model import BatchEncoder, TrainedModel, probabilities
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement
from sqlflow_submitter.values import Kind
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes


def predict(statement: Statement, database: Database, channel: StatementChannel) -> None:
    """Writes the result table: the columns of the select without the result column, then the result column.

    The result is a class as it was in the training data, or a number. With `predict.probabilities`, a column
    `p_<class>` for each class follows; see `result_layout`.

    Raises:
        UserError: the select lacks a column that the model reads, or a value cannot be read.
    """
    if not statement.result_table or not statement.result_column:
        raise UserError("PREDICT needs a table and a column, as in TO PREDICT d.t.class USING m")
    attributes = check_attributes(statement.attributes, rules.attributes("predict"))
    model = TrainedModel(statement.model_dir)
    classes = probability_classes(model.meta, statement.model) if attributes.get("predict.probabilities") else []
    described = database.describe(statement.query)
    model.check_columns(described, statement.query, database)
    check_result_table(statement, database)
    passthrough, result_column, names = result_layout(
        statement, [column.name for column in described], classes, database.dialect
    )
    check_column_case(statement, passthrough, database)
    computed = [model.result_column(result_column), *(Computed(name, Kind.FLOAT) for name in names)]
    database.write([(place, name) for name, place in passthrough.items()], computed)
    table = table_name(statement, database.dialect)
    channel.print_line(f"PREDICT {table}.{result_column} with model {statement.model}")
    if names:
        channel.print_line(f"probabilities: {', '.join(names)}")
    rows = 0
    result = database.stream(BATCH_ROWS)
    # The library is imported while the data process reads.
    booster = model.booster()
    encoder = BatchEncoder(model, result, described)
    for batch in result.batches():
        predicted = model.predict(booster, encoder.encode(batch))
        columns = [predicted.values]
        if names:
            columns += list(probabilities(predicted.margins, model.task)[:, : len(names)].T)
        database.rows(batch.rows, columns)
        rows += batch.rows
        channel.progress("predict", rows, 0, "rows")
    channel.progress("predict", rows, rows, "rows")
    print_warnings(encoder.warnings(), channel)
    database.publish(f"predicted {rows} row(s) into {table}")
