"""Extended statements: one module for each, and shared modules."""

from __future__ import annotations

from sqlflow_submitter.connect.database import Database
from sqlflow_submitter.errors import SubmitterError
from sqlflow_submitter.statement import StatementChannel
from sqlflow_submitter.step import Statement, Step


def run_extended(statement: Statement, step: Step, database: Database, channel: StatementChannel) -> None:
    """Runs one extended statement."""
    match statement.kind:
        case "train":
            from sqlflow_submitter.extended.train import train

            train(statement, step, database, channel)
        case "predict":
            from sqlflow_submitter.extended.predict import predict

            predict(statement, step, database, channel)
        case "evaluate":
            from sqlflow_submitter.extended.evaluate import evaluate

            evaluate(statement, step, database, channel)
        case "explain":
            from sqlflow_submitter.extended.explain import explain

            explain(statement, step, database, channel)
        case "show_train":
            from sqlflow_submitter.extended.show_train import show_train

            show_train(statement, channel)
        case "show_models":
            from sqlflow_submitter.extended.model_info import show_models

            show_models(statement, channel)
        case "describe_model":
            from sqlflow_submitter.extended.model_info import describe_model

            describe_model(statement, channel)
        case "drop_model":
            # The agent removes the model after this process has succeeded.
            pass
        case kind:
            raise SubmitterError(
                f"cannot execute a statement of kind {kind}: this submitter does not know it; update the submitter"
            )
