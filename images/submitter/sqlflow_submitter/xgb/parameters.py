"""The WITH attributes of an XGBoost statement: which exist, and which values they can have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlflow_submitter.errors import UserError, unknown_name
from sqlflow_submitter.xgb import rules
from sqlflow_submitter.xgb.objectives import Task, check_eval_metric, check_metric_task, check_objective
from sqlflow_submitter.xgb.rules import Rule

CLASS_EVAL_METRICS = ("logloss", "error", "merror", "mlogloss")
NUMBER_EVAL_METRICS = ("rmse", "rmsle", "mae", "mape", "mphe", "quantile")
"""XGBoost's metrics that fit only classes, or only numbers."""

SQLFLOW_PREFIXES = ("train.", "validation.")
"""Prefixes of the attributes that SQLFlow reads itself and does not pass to XGBoost."""


TREES = frozenset(
    (
        *("gamma", "min_split_loss", "max_depth", "min_child_weight", "subsample", "sampling_method"),
        *("colsample_bytree", "colsample_bylevel", "colsample_bynode", "tree_method", "refresh_leaf", "process_type"),
        *("grow_policy", "max_leaves", "max_bin", "num_parallel_tree", "monotone_constraints", "multi_strategy"),
        *("interaction_constraints", "max_cat_to_onehot", "max_cat_threshold"),
    )
)
DROPOUT = frozenset(("sample_type", "normalize_type", "rate_drop", "one_drop", "skip_drop"))
LINEAR = frozenset(("feature_selector", "top_k"))
WITHOUT_EFFECT = {"gbtree": DROPOUT | LINEAR, "dart": LINEAR, "gblinear": TREES | DROPOUT}
"""The attributes that XGBoost ignores with each booster. An objective reads `max_delta_step`, too."""

MONOTONE, INTERACTION = CONSTRAINTS = ("monotone_constraints", "interaction_constraints")


class Parameters:
    """The attributes of a TRAIN statement, checked."""

    def __init__(self, booster: str, attributes: Mapping[str, Any]) -> None:
        """Args:
        booster: `gbtree`, `gblinear` or `dart`.
        attributes: as in the step document.

        Raises:
            UserError: an attribute does not exist, or its value is not allowed.
        """
        values = check_attributes(attributes, rules.attributes("train"))
        self.native: dict[str, Any] = {
            name: value for name, value in values.items() if not name.startswith(SQLFLOW_PREFIXES)
        }
        self.native["booster"] = booster
        self.without_effect = sorted(self.native.keys() & WITHOUT_EFFECT[booster])
        """Attributes that the booster ignores."""
        self._constraints = {name: _parsed(self.native[name]) for name in CONSTRAINTS if name in self.native}
        for name, value in self._constraints.items():
            # The library expects a tuple in brackets, or a list of lists.
            directions = ", ".join(map(str, value))
            self.native[name] = f"({directions})" if name == MONOTONE else str(value)
        self.task: Task | None = None
        """The task of the objective. None if no objective is set, until the label decides."""
        if "objective" in self.native:
            self.task = check_objective(self.native["objective"])
        metrics = as_list(self.native.get("eval_metric", []))
        for metric in metrics:
            check_eval_metric(str(metric))
        if metrics:
            self.native["eval_metric"] = metrics
        if "objective" in self.native:
            self._check_objective(self.native["objective"])
        self.rounds: int = values.get("train.num_boost_round", 10)
        self.epochs: int = values.get("train.epoch", 1)
        batch_size: int = values.get("train.batch_size", -1)
        self.batch_size: int | None = batch_size if batch_size > 0 else None
        """Number of rows that a boosting round uses; None means all."""
        self.early_stopping_rounds: int | None = values.get("train.early_stopping_rounds")
        self.validation_select: str = values.get("validation.select", "")
        if values.get("train.num_workers", 1) > 1:
            raise UserError("attribute train.num_workers above 1 is not supported yet: training runs in one process")
        if self.early_stopping_rounds:
            self._check_early_stopping(booster)
        self.native.setdefault("seed", 0)

    def _check_early_stopping(self, booster: str) -> None:
        name = "attribute train.early_stopping_rounds"
        if not self.validation_select:
            raise UserError(f"{name} needs validation.select")
        if booster == "gblinear":
            raise UserError(f"{name} does not apply to gblinear: a linear model cannot return to an earlier round")
        if self.epochs > 1 or self.batch_size:
            raise UserError(f"{name} cannot be combined with train.epoch or train.batch_size: they train several times")

    def set_objective(self, objective: str) -> None:
        """Sets the objective, if the program has none."""
        self.native["objective"] = objective
        self.task = check_objective(objective)
        self._check_objective(objective)

    def requested_task(self) -> tuple[bool | None, str]:
        """Returns whether the statement requests classes (True) or numbers (False), and the reason. None: neither."""
        if self.task is not None:
            return self.task is not Task.NUMBER, "as the statement says"
        if "num_class" in self.native:
            return True, "the statement has num_class"
        for metric in self.native.get("eval_metric", ()):
            name = str(metric).partition("@")[0]
            if name in CLASS_EVAL_METRICS or name in NUMBER_EVAL_METRICS:
                return name in CLASS_EVAL_METRICS, f"the statement has eval_metric {metric}"
        return None, ""

    def check_width(self, width: int) -> None:
        """Checks that all constraints are about features of the model. XGBoost ignores some that are not.

        Raises:
            UserError: one is not.
        """
        directions = self._constraints.get(MONOTONE, [])
        if len(directions) > width:
            raise UserError(
                f"attribute {MONOTONE} has {len(directions)} values, and the model has {width} feature(s); "
                "give one value for each feature"
            )
        last = max((number for group in self._constraints.get(INTERACTION, []) for number in group), default=0)
        if last >= width:
            raise UserError(
                f"attribute {INTERACTION} names feature {last}, and the model has the features 0 to {width - 1}"
            )

    def _check_objective(self, objective: str) -> None:
        """Checks that the other attributes fit the objective."""
        rule = rules.base_score(objective)
        if rule is not None and "base_score" in self.native:
            _checked_number(f"base_score, with objective {objective},", self.native["base_score"], rule)
        for needed in rules.document()["objectives"][objective].get("needs", ()):
            if needed not in self.native:
                raise UserError(f"objective {objective} needs the attribute {needed}")
        if self.task is not Task.MULTI and "num_class" in self.native:
            raise UserError(f"attribute num_class is for multi:softmax and multi:softprob, not for {objective}")
        for metric in self.native.get("eval_metric", []):
            check_metric_task(str(metric), objective)


def _parsed(value: Any) -> list[Any]:
    """Returns a constraint as a list. As a text it is in XGBoost's notation: `(1, -1)` or `[[0, 1]]`.

    Raises:
        UserError: it is not a list.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("(") and text.endswith(")"):
            text = f"[{text[1:-1].strip().removesuffix(',')}]"
        with suppress(ValueError):
            value = json.loads(text)
    if not isinstance(value, list):
        raise UserError(f"a constraint is {value!r}; it must be a list")
    return value


def check_attributes(attributes: Mapping[str, Any], known: Mapping[str, Rule]) -> dict[str, Any]:
    """Returns the attributes' values, converted to their types.

    Raises:
        UserError: an attribute does not exist, or its value is not allowed.
    """
    return {name: check(name, value, known) for name, value in attributes.items()}


def check(name: str, value: Any, known: Mapping[str, Rule]) -> Any:
    """Returns an attribute's value, converted to its type.

    Raises:
        UserError: the attribute does not exist, or the value has another type or is out of range.
    """
    if name not in known:
        raise UserError(unknown_name("attribute", name, known))
    rule = known[name]
    value = evaluate_value(name, value)
    if rule.type == "boolean":
        if value not in (True, False, 0, 1):
            raise UserError(f"attribute {name} is {value!r}; it must be true or false")
        return bool(value)
    if rule.type in ("number", "whole number"):
        return _checked_number(name, value, rule)
    if rule.type in ("text", "objective"):
        if not isinstance(value, str):
            raise UserError(f"attribute {name} is {value!r}; it must be a string")
        if rule.choices and value not in rule.choices:
            raise UserError(unknown_name(f"value of attribute {name}:", value, rule.choices, "possible"))
    return value


def evaluate_value(name: str, value: Any) -> Any:
    """Evaluates a negative number. No other expression is allowed as a value."""
    match value:
        case {"unary": "-", "of": {"number": number}}:
            return -number
        case {"number": value} | {"string": value}:
            return value
        case list():
            return [evaluate_value(name, item) for item in value]
        case dict():
            raise UserError(f"attribute {name} must be a number, a text or a list, not an expression")
    return value


def _checked_number(name: str, value: Any, rule: Rule) -> float:
    is_whole = rule.type == "whole number"
    kind = f"a {rule.type}"
    if isinstance(value, str):
        # Older programs write numbers in quotes.
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"attribute {name} is {value!r}; it must be {kind}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or (is_whole and value != int(value)):
        raise UserError(f"attribute {name} is {value!r}; it must be {kind}")
    too_low = rule.low is not None and (value < rule.low or (rule.open_low and value == rule.low))
    if too_low or (rule.high is not None and value > rule.high):
        bounds = []
        if rule.low is not None:
            bounds.append(f"{'above' if rule.open_low else 'at least'} {rule.low:g}")
        if rule.high is not None:
            bounds.append(f"at most {rule.high:g}")
        raise UserError(f"attribute {name} is {value!r}; it must be {kind}, {' and '.join(bounds)}")
    return int(value) if is_whole else float(value)


def as_list(value: Any) -> list[Any]:
    """Returns a list unchanged, a text split at commas, and any other value as a list of one."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [value]
