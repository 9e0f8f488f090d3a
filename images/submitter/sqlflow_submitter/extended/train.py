"""TRAIN: checks the statement, loads the data, trains the model and saves it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlflow_submitter.database import Database
from sqlflow_submitter.extended.plan import TrainPlan
from sqlflow_submitter.model import WEIGHTS, ModelMeta, weights_digest
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import STATEMENT, Statement, Step
from sqlflow_submitter.version import __version__

if TYPE_CHECKING:
    from sqlflow_submitter.extended.training_data import TrainingData

MAX_ROUND_LINES = 50
"""Maximum number of rounds that are printed. All rounds are sent as metrics."""


def train(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Trains a model and writes it to the statement's output folder.

    Raises:
        UserError: the statement or the data is wrong. Raised before data is loaded, if possible.
    """
    with channel.spans.span("derive"):
        plan = TrainPlan(statement, database)
    channel.print_line(f"TRAIN {statement.estimator}: label {plan.label}, features {', '.join(plan.inputs())}")

    if plan.parameters.without_effect:
        names = ", ".join(plan.parameters.without_effect)
        channel.print_line(f"warning: {plan.parameters.native['booster']} ignores: {names}")

    database.start_reading(STATEMENT)
    # Large imports start here, while the data process reads: numpy, and later xgboost.
    from sqlflow_submitter.extended.training_data import load_training_data

    with channel.spans.span("load"):
        data = load_training_data(plan, database, channel)

    plan.parameters.check_width(data.train[0].data.shape[1])

    from sqlflow_submitter.xgb import booster as xgb

    earlier = None
    if statement.pretrained and plan.earlier is not None:
        earlier = xgb.load_booster(Path(statement.pretrained), plan.earlier)
    rounds = _Rounds(channel, _rounds(plan, data.train[0].rows))
    with channel.spans.span("train", {"sqlflow.rows": data.train[0].rows}):
        model, kept = xgb.fit(plan.parameters, data.train, data.validation, earlier, rounds.done)
    rounds.end(kept)
    folder = Path(statement.output)
    with channel.spans.span("save"):
        folder.mkdir(parents=True, exist_ok=True)
        xgb.save(model, folder)
        _meta(statement, step, plan, data, rounds.measured[kept - 1]).save(folder)
    channel.print_line(f"model {statement.model}: {os.path.getsize(folder / WEIGHTS)} bytes")


def _meta(
    statement: Statement, step: Step, plan: TrainPlan, data: TrainingData, evaluation: dict[str, float]
) -> ModelMeta:
    return ModelMeta(
        original_sql=statement.sql,
        select=statement.select,
        validation_select=plan.parameters.validation_select,
        class_name=statement.estimator,
        attributes=statement.attributes,
        objective=plan.parameters.native["objective"],
        features=data.features,
        label=plan.label,
        classes=data.classes,
        evaluation=evaluation,
        created_by=f"sqlflow_submitter {__version__}",
        trained_by=step.user,
        trained_ms=time.time_ns() // 1_000_000,
        job=step.job,
        columns=[report.to_json() for report in data.reports],
        objective_reason=data.objective_reason,
        weights_sha256=weights_digest(Path(statement.output)),
    )


def _rounds(plan: TrainPlan, rows: int) -> int:
    parameters = plan.parameters
    batches = -(-rows // parameters.batch_size) if parameters.batch_size else 1
    return parameters.rounds * parameters.epochs * batches


class _Rounds:
    """Reports each round."""

    def __init__(self, channel: StatementChannel, total: int) -> None:
        self._channel = channel
        self._total = total
        self._every = max(1, total // MAX_ROUND_LINES)
        self.measured: list[dict[str, float]] = []
        """The metrics of each round so far."""

    def done(self, values: dict[str, float]) -> None:
        self.measured.append(values)
        number = len(self.measured)
        self._channel.metrics(values, step=number)
        self._channel.spans.event("round", {"sqlflow.round": number, **values})
        has_line = number % self._every == 0 or number in (1, self._total)
        self._channel.progress("train", number, self._total, "rounds", always=has_line)
        if has_line:
            measured = "  ".join(f"{name}={value:.6g}" for name, value in values.items())
            self._channel.print_line(f"round {number}/{self._total}  {measured}")

    def end(self, kept: int) -> None:
        """Reports how many rounds the model keeps, if training stopped early."""
        trained = len(self.measured)
        if kept < trained or trained < self._total:
            self._channel.print_line(
                f"stopped after round {trained}, because validation did not improve; the model is that of round {kept}"
            )
            self._channel.metrics(self.measured[kept - 1], step=kept, kept=True)
            self._channel.progress("train", trained, trained, "rounds")
