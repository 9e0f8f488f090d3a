"""XGBoost's objectives and metrics, and the task of each."""

from __future__ import annotations

from enum import Enum

from sqlflow_submitter.errors import UserError, unknown_name
from sqlflow_submitter.xgb import rules


class Task(Enum):
    """What a model predicts."""

    BINARY = "binary"
    MULTI = "multi"
    NUMBER = "number"


def check_objective(objective: str) -> Task:
    """Returns the task of an objective.

    Raises:
        UserError: XGBoost has no such objective, or SQLFlow does not support it.
    """
    document = rules.document()
    if objective in document["unsupported_objectives"]:
        reason = document["unsupported_objectives"][objective]
        raise UserError(f"objective {objective} is not supported yet: {reason}")
    if objective not in document["objectives"]:
        raise UserError(unknown_name("objective", objective, document["objectives"]))
    return Task(document["objectives"][objective]["task"])


def check_eval_metric(metric: str) -> None:
    """Raises UserError if XGBoost has no such metric. `error@0.7` is the metric `error` with an argument."""
    name, _, argument = metric.partition("@")
    known = rules.eval_metrics()
    if name not in known:
        raise UserError(unknown_name("eval_metric", metric, known))
    if known[name].argument == "required" and not argument:
        raise UserError(f"eval_metric {name} needs an argument, as in {name}@1.5")


def check_metric_task(metric: str, objective: str) -> None:
    """Raises UserError if a metric cannot measure the predictions of an objective."""
    name = metric.partition("@")[0]
    task, known = check_objective(objective), rules.eval_metrics()
    if task.value not in known[name].tasks:
        fitting = ", ".join(other for other, rule in known.items() if task.value in rule.tasks)
        raise UserError(f"eval_metric {name} does not fit objective {objective}; use {fitting}")
    if known[name].objective not in (None, objective):
        raise UserError(f"eval_metric {name} is for objective {known[name].objective} only")
