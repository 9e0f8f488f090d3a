"""PREDICT: the select's rows, and what the model says of each, into a table."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database, Kind
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.carried import Carried
from sqlflow_submitter.extended.layout import classes_of, lay_out
from sqlflow_submitter.extended.loading import open_select, tell
from sqlflow_submitter.extended.result_table import check_kept_columns, check_result_table, result_table
from sqlflow_submitter.extended.use import BatchEncoder, UsedModel, probabilities
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes


def predict(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Writes the result table: the select's columns without the result column, then the result column.

    For a class the result is the label as it was in the training data; else a number. With `predict.probabilities` a
    column `p_<class>` for each class follows; see `lay_out`.

    Raises:
        UserError: a column that the model reads is not in the select, or a value cannot be read.
    """
    if not statement.result_table or not statement.result_column:
        raise UserError("PREDICT needs a table and a column, as in TO PREDICT d.t.class USING m")
    attributes = check_attributes(statement.attributes, rules.attributes("predict"))
    model = UsedModel(statement.model_dir)
    classes = classes_of(model.meta, statement.model) if attributes.get("predict.probabilities") else []
    described = database.describe(statement.select)
    model.check_columns(described, database)
    available = [column.name for column in described]
    check_result_table(statement, attributes, database)
    check_kept_columns(statement, available, database)
    with result_table(statement, attributes, step.scratch_suffix, database) as table:
        writer = table.writer
        _, result_column, names = lay_out(statement, available, classes, writer)
        carried = Carried(described, [result_column])
        made = [writer.column(result_column, model.result_kind()), *(writer.column(it, Kind.FLOAT) for it in names)]
        table.create_like(statement.select, carried.columns, made)
        channel.say(f"PREDICT {table.name}.{result_column} with model {statement.model}")
        if names:
            channel.say(f"probabilities: {', '.join(names)}")
        booster = model.booster()
        with open_select(database, statement.select) as result:
            encoder = BatchEncoder(model, result, described)
            for batch in result.batches():
                predicted = model.predict(booster, encoder.encode(batch))
                columns = [predicted.values]
                if names:
                    columns += probabilities(predicted.margins, model.task)[:, : len(names)].T.tolist()
                carried.insert(table, batch, [*map(writer.raw, columns)], table.rows)
                channel.progress("predict", table.rows, 0, "rows")
        channel.progress("predict", table.rows, table.rows, "rows")
        tell(encoder.warnings(), channel)
        table.publish(channel)
    channel.say(f"predicted {table.rows} row(s) into {table.name}")
