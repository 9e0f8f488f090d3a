"""Loads a select into a matrix, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlflow_submitter.connect.database import Batch, Database, Kind, ResultSet, Values
from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.clause import locate
from sqlflow_submitter.features.derive import SAMPLE_ROWS, derive
from sqlflow_submitter.features.labels import LabelReader
from sqlflow_submitter.features.matrix import Matrix, MatrixBuilder
from sqlflow_submitter.features.spec import Feature
from sqlflow_submitter.statement import StatementChannel


def open_select(database: Database, select: str) -> ResultSet:
    """Executes a select and gives its result set.

    Raises:
        UserError: the statement is none that returns rows.
    """
    for result in database.execute(select):
        if isinstance(result, ResultSet):
            return result
    raise UserError("the select returns no rows and no columns: is it a SELECT?")


def load(
    result: ResultSet,
    features: Sequence[Feature],
    labels: LabelReader | None,
    channel: StatementChannel,
    *,
    phase: str = "load",
    derived: Sequence[str] = (),
    learn: bool = False,
    one_hot: bool = False,
) -> tuple[Matrix, list[Feature]]:
    """Reads all rows of a result set.

    Args:
        result: the opened select.
        features: what is known beforehand.
        labels: takes the label column, where there is one.
        channel: told the progress.
        phase: name of the progress.
        derived: columns whose feature is first derived from a sample.
        learn: let vocabularies grow.
        one_hot: give categories a column each.

    Returns the matrix, and the features that made it: those given, then those derived.

    Raises:
        UserError: the select returned no row, or a value is none that its feature can read.
    """
    needed = {name: None for feature in features for name in feature.columns()} | dict.fromkeys(derived)
    if labels is not None:
        needed[labels.column] = None
    places = locate("column", needed, result.names())
    batches = result.batches()
    sample, rows = [], 0
    for batch in batches:
        sample.append(batch)
        rows += batch.rows
        if not derived or rows >= SAMPLE_ROWS:
            break
    if not rows:
        raise UserError("the select returned no rows")
    all_features = list(features)
    for name in derived:
        all_features.append(derive(name, _sample(result, sample, places[name])))
    builder = MatrixBuilder(all_features, learn, one_hot)
    for batch in _chain(sample, batches):
        decoded = {name: result.columns[place].decode(batch.raw[place]) for name, place in places.items()}
        if labels is not None:
            labels.add(decoded[labels.column])
        builder.add(decoded, batch.rows)
        channel.progress(phase, builder.rows, 0, "rows")
    channel.progress(phase, builder.rows, builder.rows, "rows")
    return builder.build(), all_features


def _chain(first: list[Batch], rest: Iterator[Batch]) -> Iterator[Batch]:
    while first:
        yield first.pop(0)
    yield from rest


def _sample(result: ResultSet, batches: Sequence[Batch], place: int) -> Values:
    values: list[Any] = []
    kinds = set()
    for batch in batches:
        kind, part = result.columns[place].decode(batch.raw[place])
        values += part[: SAMPLE_ROWS - len(values)]
        if any(value is not None for value in part):
            kinds.add(kind)
    return Values(kinds.pop() if len(kinds) == 1 else Kind.MIXED, values)
