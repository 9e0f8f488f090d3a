"""EVALUATE: computes metrics of a model on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlflow_submitter import metrics
from sqlflow_submitter.database import Computed, Database
from sqlflow_submitter.extended.column_kinds import check_label
from sqlflow_submitter.extended.computed_rows import send_rows
from sqlflow_submitter.extended.loading import decode_columns, end_of_rows, print_warnings
from sqlflow_submitter.extended.result_table import BATCH_ROWS, check_result_table, table_name
from sqlflow_submitter.extended.trained_model import BatchEncoder, TrainedModel, class_codes, probabilities
from sqlflow_submitter.features.clause import locate, resolve_column
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement
from sqlflow_submitter.values import ColumnInfo, Kind
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.parameters import as_list, check_attributes


def evaluate(statement: Statement, database: Database, channel: StatementChannel) -> None:
    """Sends the metrics as a result set of (metric, value) and as a frame, and writes them INTO a table, if any.

    `validation.metrics` selects them, and the names in it are used in the result. The default depends on the objective.

    Raises:
        UserError: a metric or column does not exist, a label is NULL or of an unknown class, or there are no rows.
    """
    model = TrainedModel(statement.model_dir)
    attributes = check_attributes(statement.attributes, rules.attributes("evaluate"))
    names = [str(name) for name in as_list(attributes.get("validation.metrics", []))]
    chosen = metrics.select_metrics(names, model.meta.classes is not None)
    described = database.describe(statement.query)
    label = resolve_column("label", statement.label or model.meta.label, [column.name for column in described])
    model.check_columns(described, statement.query, database)
    check_label(label, described, database.dialect, as_number=model.meta.classes is None)
    check_result_table(statement, database)
    channel.print_line(f"EVALUATE model {statement.model} ({model.meta.class_name}), label {label}")

    scores = _scores(statement, model, label, described, database, channel)
    measured = {name: metric(scores) for name, metric in chosen.items()}
    send_rows(["metric", "value"], [list(measured), list(measured.values())], database, channel)
    channel.metrics(measured)
    if (
        model.meta.classes is not None
        and len(model.meta.classes) == 2
        and metrics.measures_second_class(chosen.values())
    ):
        channel.print_line(f"precision, recall and f1 are for class {model.meta.classes[1]}")
    if statement.result_table:
        database.write([], [Computed("metric", Kind.TEXT, list(measured)), Computed("value", Kind.FLOAT)])
        database.rows(len(measured), [np.arange(len(measured)), np.array(list(measured.values()), dtype=np.float64)])
        database.publish(f"wrote {len(measured)} row(s) into {table_name(statement, database.dialect)}")


def _scores(
    statement: Statement,
    model: TrainedModel,
    label: str,
    described: Sequence[ColumnInfo],
    database: Database,
    channel: StatementChannel,
) -> metrics.Scores:
    result = database.stream(BATCH_ROWS)
    # The library is imported while the data process reads.
    from sqlflow_submitter.xgb import booster as xgb

    booster = model.booster()
    labels = model.label_reader(label)
    encoder = BatchEncoder(model, result, described)
    place = locate("label", [label], result.names())
    outputs: list[Any] = []
    rows = 0
    for batch in result.batches():
        labels.add(decode_columns(result, batch, place, described)[label])
        matrix = encoder.encode(batch)
        outputs.append((xgb.values if model.meta.classes is None else xgb.margins)(booster, matrix))
        rows += batch.rows
        channel.progress("evaluate", rows, 0, "rows")
    end_of_rows(rows, "evaluate", channel)
    print_warnings(encoder.warnings(), channel)
    truth, output = labels.finish(), np.concatenate(outputs)
    if model.meta.classes is None:
        return metrics.Scores(truth, output.astype(np.float64), None)
    return metrics.Scores(truth, class_codes(output, model.task), probabilities(output, model.task))
