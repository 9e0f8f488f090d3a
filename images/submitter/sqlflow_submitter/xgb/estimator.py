"""Names of XGBoost estimators."""

from __future__ import annotations

from sqlflow_submitter.errors import UserError, suggestions
from sqlflow_submitter.xgb import rules

# Older programs name an estimator by its task, such as XGBOOSTCLASSIFIER.
OLDER_PREFIX = "XGBOOST"


def resolve_booster(estimator: str) -> str:
    """Returns the booster of an estimator: `xgboost.dart` → `dart`, `XGBOOST*` → `gbtree` by default.

    Raises:
        UserError: it is not an XGBoost estimator.
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
