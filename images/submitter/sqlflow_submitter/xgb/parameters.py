"""The WITH attributes of an XGBoost statement: which exist, and what values they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlflow_submitter.errors import UserError, unknown
from sqlflow_submitter.xgb.objectives import Task, check_eval_metric, check_objective


class Rule(NamedTuple):
    """What an attribute's value must be."""

    type: type
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    open_low: bool = False
    """True: `low` itself is not allowed."""


def _real(low: float | None = None, high: float | None = None, open_low: bool = False) -> Rule:
    return Rule(float, low, high, (), open_low)


def _whole(low: float | None = None, high: float | None = None) -> Rule:
    return Rule(int, low, high)


def _text(*choices: str) -> Rule:
    return Rule(str, choices=choices)


TEXT_OR_LIST = Rule(object)

NATIVE: dict[str, Rule] = {
    "objective": _text(),
    "eval_metric": TEXT_OR_LIST,
    "num_class": _whole(2),
    "base_score": _real(),
    "seed": _whole(),
    "seed_per_iteration": Rule(bool),
    "nthread": _whole(0),
    "n_jobs": _whole(0),
    "verbosity": _whole(0, 3),
    "device": _text("cpu"),
    "validate_parameters": Rule(bool),
    "disable_default_eval_metric": Rule(bool),
    # trees
    "eta": _real(0, 1),
    "learning_rate": _real(0, 1),
    "gamma": _real(0),
    "min_split_loss": _real(0),
    "max_depth": _whole(0),
    "min_child_weight": _real(0),
    "max_delta_step": _real(0),
    "subsample": _real(0, 1, open_low=True),
    "sampling_method": _text("uniform", "gradient_based"),
    "colsample_bytree": _real(0, 1, open_low=True),
    "colsample_bylevel": _real(0, 1, open_low=True),
    "colsample_bynode": _real(0, 1, open_low=True),
    "lambda": _real(0),
    "reg_lambda": _real(0),
    "alpha": _real(0),
    "reg_alpha": _real(0),
    "tree_method": _text("auto", "exact", "approx", "hist"),
    "scale_pos_weight": _real(0),
    "refresh_leaf": _whole(0, 1),
    "process_type": _text("default", "update"),
    "updater": _text(),
    "grow_policy": _text("depthwise", "lossguide"),
    "max_leaves": _whole(0),
    "max_bin": _whole(2),
    "num_parallel_tree": _whole(1),
    "monotone_constraints": TEXT_OR_LIST,
    "interaction_constraints": TEXT_OR_LIST,
    "max_cat_to_onehot": _whole(1),
    "max_cat_threshold": _whole(1),
    "multi_strategy": _text("one_output_per_tree", "multi_output_tree"),
    # dart
    "sample_type": _text("uniform", "weighted"),
    "normalize_type": _text("tree", "forest"),
    "rate_drop": _real(0, 1),
    "one_drop": _whole(0, 1),
    "skip_drop": _real(0, 1),
    # gblinear
    "feature_selector": _text("cyclic", "shuffle", "random", "greedy", "thrifty"),
    "top_k": _whole(0),
    # of one objective each
    "tweedie_variance_power": _real(1, 2),
    "huber_slope": _real(0, open_low=True),
    "quantile_alpha": _real(0, 1),
}

OURS: dict[str, Rule] = {
    "train.num_boost_round": _whole(1),
    "train.epoch": _whole(1),
    "train.batch_size": _whole(-1),
    "train.num_workers": _whole(1),
    "train.early_stopping_rounds": _whole(1),
    "validation.select": _text(),
    "validation.metrics": TEXT_OR_LIST,
}


class Parameters:
    """The attributes of a TRAIN statement, checked."""

    def __init__(self, booster: str, attributes: Mapping[str, Any]) -> None:
        """Args:
        booster: `gbtree`, `gblinear` or `dart`.
        attributes: as the step's document holds them.

        Raises:
            UserError: an attribute does not exist or has a value it cannot have.
        """
        known = {**NATIVE, **OURS}
        values = check_attributes(attributes, known)
        self.native: dict[str, Any] = {name: value for name, value in values.items() if name in NATIVE}
        self.native["booster"] = booster
        for constraint in ("monotone_constraints", "interaction_constraints"):
            if isinstance(self.native.get(constraint), list):
                # The library reads them in Python's own notation: a tuple, or a list of lists.
                value = self.native[constraint]
                self.native[constraint] = str(tuple(value) if constraint.startswith("mono") else value)
        self.task: Task | None = None
        """What the objective learns; None where no objective is given, until the label tells."""
        if "objective" in self.native:
            self.task = check_objective(self.native["objective"])
        metrics = as_list(self.native.get("eval_metric", []))
        for metric in metrics:
            check_eval_metric(str(metric))
        if metrics:
            self.native["eval_metric"] = metrics
        self.rounds: int = values.get("train.num_boost_round", 10)
        self.epochs: int = values.get("train.epoch", 1)
        batch_size: int = values.get("train.batch_size", -1)
        self.batch_size: int | None = batch_size if batch_size > 0 else None
        """Rows that one boosting round sees; None: all."""
        self.early_stopping_rounds: int | None = values.get("train.early_stopping_rounds")
        self.validation_select: str = values.get("validation.select", "")
        self.validation_metrics: list[str] = [str(name) for name in as_list(values.get("validation.metrics", []))]
        if values.get("train.num_workers", 1) > 1:
            raise UserError("attribute train.num_workers above 1 is not supported yet: training runs in one process")
        if self.early_stopping_rounds:
            self._check_early_stopping(booster)
        self.native.setdefault("seed", 0)

    def _check_early_stopping(self, booster: str) -> None:
        name = "attribute train.early_stopping_rounds"
        if not self.validation_select:
            raise UserError(f"{name} needs validation.select, to tell when to stop")
        if booster == "gblinear":
            raise UserError(f"{name} is not for gblinear: a linear model cannot go back to an earlier round")
        if self.epochs > 1 or self.batch_size:
            raise UserError(f"{name} cannot go with train.epoch or train.batch_size: they train several times")

    def decide(self, objective: str) -> None:
        """Sets the objective where the program gave none."""
        self.native["objective"] = objective
        self.task = check_objective(objective)


def check_attributes(attributes: Mapping[str, Any], known: Mapping[str, Rule]) -> dict[str, Any]:
    """Gives the attributes' values in their own types.

    Raises:
        UserError: an attribute does not exist or has a value it cannot have.
    """
    return {name: check(name, value, known) for name, value in attributes.items()}


def check(name: str, value: Any, known: Mapping[str, Rule]) -> Any:
    """Gives an attribute's value in its own type.

    Raises:
        UserError: there is no such attribute, or the value is of another type or out of range.
    """
    if name not in known:
        raise UserError(unknown("attribute", name, known))
    rule = known[name]
    value = plain(name, value)
    if rule.type is bool:
        if value not in (True, False, 0, 1):
            raise UserError(f"attribute {name} is {value!r}; it must be true or false")
        return bool(value)
    if rule.type in (int, float):
        return _checked_number(name, value, rule)
    if rule.type is str:
        if not isinstance(value, str):
            raise UserError(f"attribute {name} is {value!r}; it must be a text")
        if rule.choices and value not in rule.choices:
            raise UserError(unknown(f"value of attribute {name}:", value, rule.choices, "possible"))
    return value


def plain(name: str, value: Any) -> Any:
    """Computes a negative number; no other expression is a value."""
    match value:
        case {"unary": "-", "of": {"number": number}}:
            return -number
        case {"number": value} | {"string": value}:
            return value
        case list():
            return [plain(name, item) for item in value]
        case dict():
            raise UserError(f"attribute {name} must be a number, a text or a list, not an expression")
    return value


def _checked_number(name: str, value: Any, rule: Rule) -> float:
    kind = "a whole number" if rule.type is int else "a number"
    if isinstance(value, str):
        # Older programs quote numbers.
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"attribute {name} is {value!r}; it must be {kind}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or (rule.type is int and value != int(value)):
        raise UserError(f"attribute {name} is {value!r}; it must be {kind}")
    too_low = rule.low is not None and (value < rule.low or (rule.open_low and value == rule.low))
    if too_low or (rule.high is not None and value > rule.high):
        bounds = []
        if rule.low is not None:
            bounds.append(f"{'above' if rule.open_low else 'at least'} {rule.low:g}")
        if rule.high is not None:
            bounds.append(f"at most {rule.high:g}")
        raise UserError(f"attribute {name} is {value!r}; it must be {kind}, {' and '.join(bounds)}")
    return rule.type(value)  # type: ignore[no-any-return]


def as_list(value: Any) -> list[Any]:
    """Gives a list as it is, a text as the names in it, and any other value as a list of one."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [value]
