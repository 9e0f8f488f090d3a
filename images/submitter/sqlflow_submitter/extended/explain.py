"""EXPLAIN: the contribution of each feature to each prediction, as SHAP values.

XGBoost computes them; for trees they are exact. A feature that occupies several columns of the matrix gets the sum of
their values, because SHAP values are additive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.connect.database import ColumnInfo, Database, Kind
from sqlflow_submitter.extended.loading import end_of_rows, open_select, print_warnings
from sqlflow_submitter.extended.passthrough import PassthroughColumns
from sqlflow_submitter.extended.result_table import (
    ResultTable,
    check_column_case,
    check_result_table,
    fold_case,
    result_table,
)
from sqlflow_submitter.extended.trained_model import BatchEncoder, TrainedModel
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.matrix import matrix_width
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes

Floats = NDArray[np.float64]

CLASS_COLUMN = "class"
ROW_COLUMN = "row"


def explain(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Prints a ranking of the features, sends a plot of it, and writes all SHAP values INTO a table, if any.

    The table has: the columns of the select that the model does not read, such as a key; `row`, the number of the row
    in the select, from 1; with more than two classes `class`, and one table row for each class; and one column for
    each feature.

    Raises:
        UserError: an attribute does not exist, the select lacks a column that the model reads, or there are no rows.
    """
    attributes = check_attributes(statement.attributes, rules.attributes("explain"))
    model = TrainedModel(statement.model_dir)
    described = database.describe(statement.select)
    model.check_columns(described, statement.select, database)
    check_result_table(statement, attributes, database)
    names = unique_names(feature.label() for feature in model.meta.features)
    channel.print_line(f"EXPLAIN model {statement.model} ({model.meta.class_name})")
    if statement.result_table:
        with result_table(statement, attributes, step.staging_suffix, database) as table:
            available = [column.name for column in described]
            read = {available[place] for place in locate("column", model.meta.inputs(), available).values()}
            passthrough = PassthroughColumns(described, read)
            check_column_case(statement, passthrough.names, database)
            _create(table, passthrough, names, model, statement.select, database.dialect)
            importance = _explain(statement, model, described, database, channel, (table, passthrough))
            table.publish(channel)
    else:
        importance = _explain(statement, model, described, database, channel, None)
    ranking = sorted(zip(names, importance.tolist(), strict=True), key=lambda item: -item[1])
    _print(ranking, channel)

    from sqlflow_submitter.extended.plot import MAX_NAMED, bar_plot

    picture, missing = bar_plot(ranking, f"Mean |SHAP value|, model {statement.model}")
    if missing:
        shown = ", ".join(missing[:MAX_NAMED]) + (" …" if len(missing) > MAX_NAMED else "")
        channel.print_line(
            f"warning: no installed font has all characters of {shown}: the picture shows boxes instead; "
            "install one in the image, such as fonts-noto-cjk"
        )
    channel.display("image/png", picture)


def unique_names(
    wanted: Iterable[str], taken: Iterable[str] = (ROW_COLUMN, CLASS_COLUMN), dialect: str = ""
) -> list[str]:
    """Returns column names that are unique: a number is appended to a name that is taken, as in `class_2`.

    Case does not matter, except in PostgreSQL if `dialect` names it.
    """
    names: list[str] = []
    used = {fold_case(name, dialect) for name in taken}
    for label in wanted:
        name, number = label, 1
        while fold_case(name, dialect) in used:
            number += 1
            name = f"{label}_{number}"
        used.add(fold_case(name, dialect))
        names.append(name)
    return names


def _create(
    table: ResultTable,
    passthrough: PassthroughColumns,
    names: list[str],
    model: TrainedModel,
    select: str,
    dialect: str,
) -> None:
    writer = table.writer
    computed = [writer.column(ROW_COLUMN, Kind.INT)]
    if has_classes(model):
        computed.append(writer.column(CLASS_COLUMN, model.result_kind()))
    computed += [writer.column(name, Kind.FLOAT) for name in names]
    kept = unique_names(passthrough.names, [column.name for column in computed], dialect)
    if kept != passthrough.names:
        renamed = (
            f"{writer.quote(old)} AS {writer.quote(new)}" for old, new in zip(passthrough.names, kept, strict=True)
        )
        # The newline closes a comment at the end of the select.
        select = f"SELECT {', '.join(renamed)} FROM ({select}\n) AS sqlflow_carried"
    columns = [column._replace(name=name) for column, name in zip(passthrough.columns, kept, strict=True)]
    table.create_from_select(select, columns, computed)


def has_classes(model: TrainedModel) -> bool:
    """Returns whether each row has SHAP values for each class. With two classes, only the second has values."""
    return model.meta.classes is not None and len(model.meta.classes) > 2


def _explain(
    statement: Statement,
    model: TrainedModel,
    described: Sequence[ColumnInfo],
    database: Database,
    channel: StatementChannel,
    into: tuple[ResultTable, PassthroughColumns] | None,
) -> Floats:
    """Returns the mean absolute SHAP value of each feature, over all rows and classes."""
    from sqlflow_submitter.xgb.booster import contributions

    booster = model.booster()
    total = np.zeros(len(model.meta.features))
    rows = 0
    with open_select(database, statement.select) as result:
        encoder = BatchEncoder(model, result, described)
        for batch in result.batches():
            shap = by_feature(contributions(booster, encoder.encode(batch)), model)
            total += np.abs(shap).sum(axis=0).mean(axis=0)
            if into is not None:
                table, passthrough = into
                passthrough.insert(table, batch, _raw(table, shap, rows, model), rows, copies=shap.shape[1])
            rows += batch.rows
            channel.progress("explain", rows, 0, "rows")
    end_of_rows(rows, "explain", channel)
    print_warnings(encoder.warnings(), channel)
    return total / rows


def by_feature(contributions: Any, model: TrainedModel) -> Floats:
    """Sums the columns of the matrix by feature: (rows, classes, features). A model with one output has one class."""
    if contributions.ndim == 2:
        contributions = contributions[:, np.newaxis, :]
    widths = [matrix_width(feature, model.one_hot) for feature in model.meta.features]
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    # The last column is the bias.
    return np.add.reduceat(contributions[:, :, :-1].astype(np.float64), starts, axis=2)


def _raw(table: ResultTable, shap: Floats, rows_before: int, model: TrainedModel) -> list[Sequence[Any]]:
    """Returns the computed columns for a batch, as raw values."""
    rows, classes, features = shap.shape
    numbers = np.repeat(np.arange(rows_before + 1, rows_before + rows + 1), classes)
    columns: list[list[Any]] = [numbers.tolist()]
    if has_classes(model):
        columns.append(list(model.meta.classes or []) * rows)
    columns += shap.reshape(rows * classes, features).T.tolist()
    return [table.writer.raw(column) for column in columns]


def _print(ranking: list[tuple[str, float]], channel: StatementChannel) -> None:
    width = max(len(name) for name, _ in ranking)
    channel.print_line("mean |SHAP value| by feature:")
    for name, value in ranking:
        channel.print_line(f"  {name:<{width}}  {value:.6g}")
