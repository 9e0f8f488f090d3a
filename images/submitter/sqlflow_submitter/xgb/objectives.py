"""XGBoost's objectives and metrics, as its documentation lists them, and what each learns."""

from __future__ import annotations

from enum import Enum

from sqlflow_submitter.errors import UserError, unknown


class Task(Enum):
    """What a model predicts."""

    BINARY = "one of two classes"
    MULTI = "one of several classes"
    NUMBER = "a number"


OBJECTIVES = {
    "binary:logistic": Task.BINARY,
    "binary:logitraw": Task.BINARY,
    "binary:hinge": Task.BINARY,
    "multi:softmax": Task.MULTI,
    "multi:softprob": Task.MULTI,
    "reg:squarederror": Task.NUMBER,
    "reg:squaredlogerror": Task.NUMBER,
    "reg:logistic": Task.NUMBER,
    "reg:pseudohubererror": Task.NUMBER,
    "reg:absoluteerror": Task.NUMBER,
    "reg:quantileerror": Task.NUMBER,
    "reg:gamma": Task.NUMBER,
    "reg:tweedie": Task.NUMBER,
    "count:poisson": Task.NUMBER,
    "survival:cox": Task.NUMBER,
}

NOT_YET = {
    "rank:ndcg": "it needs groups of rows",
    "rank:map": "it needs groups of rows",
    "rank:pairwise": "it needs groups of rows",
    "survival:aft": "it needs two label columns",
}

EVAL_METRICS = (
    "rmse",
    "rmsle",
    "mae",
    "mape",
    "mphe",
    "logloss",
    "error",
    "merror",
    "mlogloss",
    "auc",
    "aucpr",
    "quantile",
    "poisson-nloglik",
    "gamma-nloglik",
    "gamma-deviance",
    "cox-nloglik",
    "tweedie-nloglik",
)


def check_objective(objective: str) -> Task:
    """Gives what an objective learns.

    Raises:
        UserError: XGBoost has no such objective, or this program does not offer it.
    """
    if objective in NOT_YET:
        raise UserError(f"objective {objective} is not supported yet: {NOT_YET[objective]}")
    if objective not in OBJECTIVES:
        raise UserError(unknown("objective", objective, OBJECTIVES))
    return OBJECTIVES[objective]


def check_eval_metric(metric: str) -> None:
    """Raises UserError when XGBoost has no such metric; `error@0.7` is the metric `error` with an argument."""
    if metric.partition("@")[0] not in EVAL_METRICS:
        raise UserError(unknown("eval_metric", metric, EVAL_METRICS))
