"""Learns the features of a TRAIN statement while its data is loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.features.collect import Collector, LearnedColumn
from sqlflow_submitter.features.encode import Block, Columns
from sqlflow_submitter.features.matrix import EncodedFeature, Matrix, assemble
from sqlflow_submitter.features.precision import PrecisionCheck
from sqlflow_submitter.features.report import ColumnReport
from sqlflow_submitter.features.spec import DENSE, Feature
from sqlflow_submitter.values import Values

THREADS = 2
"""Number of columns that are finished at the same time. Each needs some copies of the column."""
MAX_COUNTED = 10_000
"""Maximum number of distinct values that are counted in a column whose features are fixed."""


class LearnedFeatures(NamedTuple):
    """The result of learning."""

    matrix: Matrix
    features: list[Feature]
    reports: list[ColumnReport]


class Learner:
    """Collects the data, batch by batch. `collect` states the memory."""

    def __init__(
        self, features: Sequence[Feature], derived: Sequence[str], types: Mapping[str, str], one_hot: bool
    ) -> None:
        """Args:
        features: the features that the COLUMN clause defines.
        derived: columns whose features are derived from their values.
        types: the database's name for each column's declared type.
        one_hot: whether each category gets a column, for models that read codes as quantities.
        """
        self._one_hot = one_hot
        self._sources: list[EncodedFeature | Collector] = []
        for feature in features:
            if feature.kind == DENSE and feature.width == 1:
                self._sources.append(Collector(feature.column, types.get(feature.column, ""), is_named=True))
            else:
                feature.use_canonical_text()
                self._sources.append(EncodedFeature(feature, checks_precision=True))
        self._sources += [Collector(column, types.get(column, "")) for column in derived]
        self._counted: dict[str, ColumnCounter] = {}
        collected = {source.column for source in self._sources if isinstance(source, Collector)}
        for feature in features:
            for column in feature.columns():
                if column not in collected:
                    counter = self._counted.setdefault(column, ColumnCounter(column, types.get(column, "")))
                    counter.add_use(feature.kind.upper())

    def add(self, columns: Columns) -> None:
        """Adds a batch, given by column name."""
        for source in self._sources:
            source.add(columns)
        for column, counter in self._counted.items():
            counter.add(columns[column])

    def finish(self) -> LearnedFeatures:
        """Decides the features of all columns. The learner cannot be used afterwards.

        Raises:
            UserError: a value does not fit its column, or no column has a value.
        """
        features: list[Feature] = []
        blocks: list[Block] = []
        reports: dict[str, ColumnReport] = {}
        for source in self._finished():
            if isinstance(source, EncodedFeature):
                features.append(source.feature)
                blocks.append(source.take())
                for tally in source.tallies():
                    if tally.total() and tally.column in self._counted:
                        self._counted[tally.column].add_sentences(tally.sentences())
                for column, check in source.precision():
                    if column in self._counted:
                        self._counted[column].add_precision(check)
                continue
            reports.setdefault(source.report.name, source.report)
            if source.feature is not None:
                features.append(source.feature)
                blocks.append(source.block)
        if not features:
            raise UserError("cannot train: no column has a value in any row")
        for column, counter in self._counted.items():
            reports[column] = counter.report()
        return LearnedFeatures(assemble(features, blocks, self._one_hot), features, list(reports.values()))

    def _finished(self) -> Iterator[EncodedFeature | LearnedColumn]:
        """Finishes the columns in order, two at a time: numpy sorts without Python's global lock."""
        threads = ThreadPoolExecutor(THREADS)
        try:
            waiting = deque(
                source if isinstance(source, EncodedFeature) else threads.submit(source.finish)
                for source in self._sources
            )
            # Each one is released when it is finished.
            self._sources = []
            while waiting:
                source = waiting.popleft()
                yield source if isinstance(source, EncodedFeature) else source.result()
        finally:
            threads.shutdown(cancel_futures=True)


class ColumnCounter:
    """Counts the values of a column whose features are fixed."""

    def __init__(self, column: str, database_type: str, taken_as: str = "") -> None:
        self._report = ColumnReport(column, database_type, taken_as)
        self._seen: set[Any] = set()

    def add_use(self, kind: str) -> None:
        taken_as = self._report.taken_as
        if kind not in taken_as.split(", "):
            self._report.taken_as = f"{taken_as}, {kind}" if taken_as else kind

    def add(self, values: Values) -> None:
        self._report.missing += values.values.count(None)
        if not self._report.more_distinct:
            self._seen.update(values.values)
            self._seen.discard(None)
            if len(self._seen) > MAX_COUNTED:
                self._report.more_distinct, self._seen = True, set()

    def add_sentences(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in self._report.sentences:
                self._report.warn("values taken as missing", sentence)

    def add_precision(self, check: PrecisionCheck) -> None:
        if "loses precision" not in self._report.warnings:
            check.warn(self._report)

    def report(self) -> ColumnReport:
        self._report.distinct = MAX_COUNTED if self._report.more_distinct else len(self._seen)
        return self._report
