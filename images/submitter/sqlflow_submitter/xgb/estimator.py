"""Names of XGBoost estimators."""

from __future__ import annotations

from sqlflow_submitter.errors import UserError, suggestions
from sqlflow_submitter.xgb import rules

# The older form names an estimator by what it does, e.g. XGBOOSTCLASSIFIER.
OLDER_PREFIX = "XGBOOST"


def resolve_booster(estimator: str) -> str:
    """Gives the booster that an estimator's name means: `xgboost.dart` → `dart`, any `XGBOOST*` → `gbtree`.

    Raises:
        UserError: the estimator is none of XGBoost's.
    """
    supported = rules.document()["estimators"]
    if estimator.lower() in supported:
        return estimator.lower().partition(".")[2]
    if estimator.upper().startswith(OLDER_PREFIX) and "." not in estimator:
        older = estimator.upper().removeprefix(OLDER_PREFIX).lower()
        return next((name for name in ("gblinear", "dart") if name in older), "gbtree")
    similar = suggestions(estimator, supported)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    raise UserError(f"estimator {estimator} is not supported yet; supported: {', '.join(supported)}{hint}")
