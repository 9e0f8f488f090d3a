"""PREDICT: writes the rows of a select and the model's predictions to a table."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database, Kind
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.layout import probability_classes, result_layout
from sqlflow_submitter.extended.loading import open_select, print_warnings
from sqlflow_submitter.extended.passthrough import PassthroughColumns
from sqlflow_submitter.extended.result_table import check_column_case, check_result_table, result_table
from sqlflow_submitter.extended.trained_model import BatchEncoder, TrainedModel, probabilities
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes


def predict(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
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
    described = database.describe(statement.select)
    model.check_columns(described, statement.select, database)
    available = [column.name for column in described]
    check_result_table(statement, attributes, database)
    with result_table(statement, attributes, step.staging_suffix, database) as table:
        writer = table.writer
        kept, result_column, names = result_layout(statement, available, classes, writer, database.dialect)
        check_column_case(statement, kept, database)
        passthrough = PassthroughColumns(described, {*available} - {*kept})
        computed = [writer.column(result_column, model.result_kind()), *(writer.column(it, Kind.FLOAT) for it in names)]
        table.create_from_select(statement.select, passthrough.columns, computed)
        channel.print_line(f"PREDICT {table.name}.{result_column} with model {statement.model}")
        if names:
            channel.print_line(f"probabilities: {', '.join(names)}")
        booster = model.booster()
        with open_select(database, statement.select) as result:
            encoder = BatchEncoder(model, result, described)
            for batch in result.batches():
                predicted = model.predict(booster, encoder.encode(batch))
                columns = [predicted.values]
                if names:
                    columns += probabilities(predicted.margins, model.task)[:, : len(names)].T.tolist()
                passthrough.insert(table, batch, [*map(writer.raw, columns)], table.rows)
                channel.progress("predict", table.rows, 0, "rows")
        channel.progress("predict", table.rows, table.rows, "rows")
        print_warnings(encoder.warnings(), channel)
        table.publish(channel)
    channel.print_line(f"predicted {table.rows} row(s) into {table.name}")
