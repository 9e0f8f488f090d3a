"""PREDICT: the select's rows, and what the model says of each, into a table."""

from __future__ import annotations

from collections.abc import Sequence

from sqlflow_submitter.connect.database import Database, Kind
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.extended.carried import Carried
from sqlflow_submitter.extended.loading import open_select, tell
from sqlflow_submitter.extended.result_table import check_result_table, result_table
from sqlflow_submitter.extended.use import BatchEncoder, UsedModel, probabilities
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes

MAX_PROBABILITIES = 500
"""Columns of probabilities; databases stop at some 1,000 columns of any kind."""

MAX_NAME_BYTES = 63
"""Of a column in PostgreSQL; others allow as many, or more."""


def predict(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Writes the result table: the select's columns without the result column, then the result column.

    For a class the result is the label as it was in the training data; else a number. With `predict.probabilities` a
    column `p_<class>` for each class follows; see `probability_names`.

    Raises:
        UserError: a column that the model reads is not in the select, or a value cannot be read.
    """
    if not statement.result_table or not statement.result_column:
        raise UserError("PREDICT needs a table and a column, as in TO PREDICT d.t.class USING m")
    attributes = check_attributes(statement.attributes, rules.attributes("predict"))
    model = UsedModel(statement.model_dir)
    classes = _classes(model, statement.model) if attributes.get("predict.probabilities") else []
    described = database.describe(statement.select)
    model.check_columns([column.name for column in described])
    check_result_table(statement, attributes, database)
    with result_table(statement, attributes, step.scratch_suffix, database) as table:
        writer = table.writer
        result_column = writer.column(writer.column_name(statement.result_column), model.result_kind())
        carried = Carried(described, [result_column.name])
        taken = [*carried.names, result_column.name]
        names = probability_names([writer.column_name(f"p_{text}") for text in classes], taken)
        made = [result_column, *(writer.column(name, Kind.FLOAT) for name in names)]
        table.create_like(statement.select, carried.columns, made)
        channel.say(f"PREDICT {table.name}.{result_column.name} with model {statement.model}")
        if names:
            channel.say(f"probabilities: {', '.join(names)}")
        booster = model.booster()
        with open_select(database, statement.select) as result:
            encoder = BatchEncoder(model, result)
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


def _classes(model: UsedModel, name: str) -> list[str]:
    """Gives the classes whose probabilities are wanted, as texts.

    Raises:
        UserError: the model has none.
    """
    classes, objective = model.meta.classes, model.meta.objective
    if classes is None or objective == "binary:hinge":
        raise UserError(f"attribute predict.probabilities: model {name} has none, its objective is {objective}")
    if len(classes) > MAX_PROBABILITIES:
        raise UserError(
            f"attribute predict.probabilities: model {name} has {len(classes)} classes, "
            f"and a table has room for {MAX_PROBABILITIES}"
        )
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in classes]


def probability_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Makes names of columns: `p_<class>`, cut to what every database allows.

    Where classes differ in case only, or are long, a number is added to those that come later: `p_Yes`, `p_yes_2`.

    Raises:
        UserError: the select has a column of the name.
    """
    others = {name.lower() for name in taken}
    found: list[str] = []
    for name in names:
        wanted = chosen = _cut(name, MAX_NAME_BYTES)
        number = 1
        while chosen.lower() in {name.lower() for name in found}:
            number += 1
            chosen = f"{_cut(wanted, MAX_NAME_BYTES - len(str(number)) - 1)}_{number}"
        if chosen.lower() in others:
            raise UserError(
                f"attribute predict.probabilities: the select has a column {chosen} already; "
                "leave it out, or rename it with AS"
            )
        found.append(chosen)
    return found


def _cut(name: str, limit: int) -> str:
    return name.encode()[:limit].decode(errors="ignore").rstrip()
