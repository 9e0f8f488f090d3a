"""PREDICT: the select's rows, and what the model says of each, into a table."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.loading import open_select
from sqlflow_submitter.extended.result_table import check_result_table, result_table
from sqlflow_submitter.extended.use import BatchEncoder, UsedModel
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes


def predict(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Writes the result table: the select's columns without the result column, then the result column.

    For a class the result is the label as it was in the training data; else a number.

    Raises:
        UserError: a column that the model reads is not in the select, or a value cannot be read.
    """
    if not statement.result_table or not statement.result_column:
        raise UserError("PREDICT needs a table and a column, as in TO PREDICT d.t.class USING m")
    attributes = check_attributes(statement.attributes, rules.attributes("predict"))
    model = UsedModel(statement.model_dir)
    described = database.describe(statement.select)
    available = [column.name for column in described]
    model.check_columns(available)
    check_result_table(statement, attributes, database)
    with result_table(statement, attributes, step.scratch_suffix, database) as table:
        result_column = table.writer.column(table.writer.column_name(statement.result_column), model.result_kind())
        kept = [name for name in available if name.lower() != result_column.name.lower()]
        places = list(locate("column", kept, available).values())
        table.create_like(statement.select, [described[place] for place in places], [result_column])
        channel.say(f"PREDICT {table.name}.{result_column.name} with model {statement.model}")
        booster = model.booster()
        with open_select(database, statement.select) as result:
            encoder = BatchEncoder(model, result)
            for batch in result.batches():
                predicted = table.writer.raw(model.predict(booster, encoder.encode(batch)))
                table.insert([*(batch.raw[place] for place in places), predicted])
                channel.progress("predict", table.rows, 0, "rows")
        channel.progress("predict", table.rows, table.rows, "rows")
        table.publish(channel)
    channel.say(f"predicted {table.rows} row(s) into {table.name}")
