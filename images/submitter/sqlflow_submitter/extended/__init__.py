"""Extended statements: one module for each, and shared modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step

if TYPE_CHECKING:
    from sqlflow_submitter.database import Database


WITH_SELECT = ("train", "predict", "evaluate", "explain")


def run_extended(statement: Statement, step: Step, database: Database | None, channel: StatementChannel) -> None:
    """Runs one extended statement. `database` is None if it needs none."""
    if statement.kind in WITH_SELECT:
        if database is None:
            raise SubmitterError(
                f"cannot execute a statement of kind {statement.kind}: there is no data process beside this program"
            )
        _run_with_select(statement, step, database, channel)
        return
    match statement.kind:
        case "show_train":
            from sqlflow_submitter.extended.show_train import show_train

            show_train(statement, database, channel)
        case "show_models":
            from sqlflow_submitter.extended.model_info import show_models

            show_models(statement, database, channel)
        case "describe_model":
            from sqlflow_submitter.extended.model_info import describe_model

            describe_model(statement, database, channel)
        case "drop_model":
            # The agent removes the model after this process has succeeded.
            pass
        case kind:
            raise SubmitterError(
                f"cannot execute a statement of kind {kind}: this submitter does not know it; update the submitter"
            )


def _run_with_select(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    match statement.kind:
        case "train":
            from sqlflow_submitter.extended.train import train

            train(statement, step, database, channel)
        case "predict":
            from sqlflow_submitter.extended.predict import predict

            predict(statement, database, channel)
        case "evaluate":
            from sqlflow_submitter.extended.evaluate import evaluate

            evaluate(statement, database, channel)
        case "explain":
            from sqlflow_submitter.extended.explain import explain

            explain(statement, database, channel)
