"""EXPLAIN: the contribution of each feature to each prediction, as SHAP values.

XGBoost computes them; for trees they are exact. A feature that occupies several columns of the matrix gets the sum of
their values, because SHAP values are additive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlflow_submitter.database import Computed, Database
from sqlflow_submitter.extended.loading import end_of_rows, print_warnings
from sqlflow_submitter.extended.result_table import check_column_case, check_result_table, fold_case, table_name
from sqlflow_submitter.extended.trained_model import BatchEncoder, TrainedModel
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.matrix import matrix_width
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement
from sqlflow_submitter.values import ColumnInfo, Kind
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import check_attributes

Floats = NDArray[np.float64]

CLASS_COLUMN = "class"
ROW_COLUMN = "row"

MAX_ROWS = 4096
"""Maximum number of rows of a batch. Each row has a value for each class and column of the matrix."""


def explain(statement: Statement, database: Database, channel: StatementChannel) -> None:
    """Prints a ranking of the features, sends a plot of it, and writes all SHAP values INTO a table, if any.

    The table has: the columns of the select that the model does not read, such as a key; `row`, the number of the row
    in the select, from 1; with more than two classes `class`, and one table row for each class; and one column for
    each feature.

    Raises:
        UserError: an attribute does not exist, the select lacks a column that the model reads, or there are no rows.
    """
    check_attributes(statement.attributes, rules.attributes("explain"))
    model = TrainedModel(statement.model_dir)
    described = database.describe(statement.query)
    model.check_columns(described, statement.query, database)
    check_result_table(statement, database)
    names = unique_names(feature.label() for feature in model.meta.features)
    channel.print_line(f"EXPLAIN model {statement.model} ({model.meta.class_name})")
    if statement.result_table:
        _create(statement, described, names, model, database)
    importance, rows = _explain(statement, model, described, database, channel)
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
    if statement.result_table:
        written = rows * classes_of(model)
        database.publish(f"wrote {written} row(s) into {table_name(statement, database.dialect)}")


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
    statement: Statement,
    described: Sequence[ColumnInfo],
    names: list[str],
    model: TrainedModel,
    database: Database,
) -> None:
    available = [column.name for column in described]
    read = {available[place] for place in locate("column", model.meta.inputs(), available).values()}
    passthrough = locate("column", [name for name in available if name not in read], available)
    check_column_case(statement, passthrough, database)
    computed = [Computed(ROW_COLUMN, Kind.INT)]
    if has_classes(model):
        computed.append(model.result_column(CLASS_COLUMN))
    computed += [Computed(name, Kind.FLOAT) for name in names]
    chosen = unique_names(passthrough, [column.name for column in computed], database.dialect)
    database.write(list(zip(passthrough.values(), chosen, strict=True)), computed, classes_of(model))


def classes_of(model: TrainedModel) -> int:
    """Returns the number of classes that have values for each row, or 1."""
    return len(model.meta.classes or []) if has_classes(model) else 1


def has_classes(model: TrainedModel) -> bool:
    """Returns whether each row has SHAP values for each class. With two classes, only the second has values."""
    return model.meta.classes is not None and len(model.meta.classes) > 2


def _explain(
    statement: Statement,
    model: TrainedModel,
    described: Sequence[ColumnInfo],
    database: Database,
    channel: StatementChannel,
) -> tuple[Floats, int]:
    """Returns the mean absolute SHAP value of each feature, over all rows and classes, and the number of rows.

    Writes the values, if the statement has a result table.
    """
    result = database.stream(MAX_ROWS)
    # The library is imported while the data process reads.
    from sqlflow_submitter.xgb.booster import contributions

    booster = model.booster()
    total = np.zeros(len(model.meta.features))
    rows = 0
    encoder = BatchEncoder(model, result, described)
    for batch in result.batches():
        shap = by_feature(contributions(booster, encoder.encode(batch)), model)
        total += np.abs(shap).sum(axis=0).mean(axis=0)
        if statement.result_table:
            database.rows(batch.rows, _columns(shap, rows, model))
        rows += batch.rows
        channel.progress("explain", rows, 0, "rows")
    end_of_rows(rows, "explain", channel)
    print_warnings(encoder.warnings(), channel)
    return total / rows, rows


def by_feature(contributions: Any, model: TrainedModel) -> Floats:
    """Sums the columns of the matrix by feature: (rows, classes, features). A model with one output has one class."""
    if contributions.ndim == 2:
        contributions = contributions[:, np.newaxis, :]
    widths = [matrix_width(feature, model.one_hot) for feature in model.meta.features]
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    # The last column is the bias.
    return np.add.reduceat(contributions[:, :, :-1].astype(np.float64), starts, axis=2)


def _columns(shap: Floats, rows_before: int, model: TrainedModel) -> list[NDArray[Any]]:
    """Returns the computed columns for a batch."""
    rows, classes, features = shap.shape
    columns: list[NDArray[Any]] = [np.repeat(np.arange(rows_before + 1, rows_before + rows + 1), classes)]
    if has_classes(model):
        columns.append(np.tile(np.arange(classes), rows))
    return [*columns, *shap.reshape(rows * classes, features).T]


def _print(ranking: list[tuple[str, float]], channel: StatementChannel) -> None:
    width = max(len(name) for name, _ in ranking)
    channel.print_line("mean |SHAP value| by feature:")
    for name, value in ranking:
        channel.print_line(f"  {name:<{width}}  {value:.6g}")
