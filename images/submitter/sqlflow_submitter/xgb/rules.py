"""The rules for attributes, objectives and metrics.

The server uses the same document: it checks a program before the first statement runs.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """The allowed values of an attribute."""

    type: str
    """`number`, `whole number`, `boolean`, `text`, `objective`, `metrics`, `eval metrics`, `names`, `directions` or
    `groups`."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    open_low: bool = False
    """Whether `low` itself is excluded."""


class EvalMetric(NamedTuple):
    """A metric that XGBoost computes after each round."""

    tasks: tuple[str, ...]
    objective: str | None
    """The only objective that it fits; None means any."""
    argument: str
    """Whether it has an argument, as in `error@0.7`: `none`, `optional` or `required`."""


@cache
def document() -> dict[str, Any]:
    """Returns the document."""
    return json.loads((Path(__file__).parent / "rules.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@cache
def attributes(kind: str) -> dict[str, Rule]:
    """Returns the attributes of a kind of statement: `train`, `predict`, `evaluate` or `explain`."""
    return {name: _rule(rule) for name, rule in document()["attributes"][kind].items()}


@cache
def eval_metrics() -> dict[str, EvalMetric]:
    """Returns XGBoost's metrics by name."""
    return {
        name: EvalMetric(tuple(metric["tasks"]), metric.get("objective"), metric.get("argument", "none"))
        for name, metric in document()["eval_metrics"].items()
    }


def base_score(objective: str) -> Rule | None:
    """Returns the allowed values of `base_score` for an objective, or None if all numbers are allowed."""
    rule = document()["objectives"][objective].get("base_score")
    return None if rule is None else _rule(rule)


def _rule(rule: dict[str, Any]) -> Rule:
    return Rule(
        rule.get("type", "number"),
        rule.get("above", rule.get("min")),
        rule.get("max"),
        tuple(rule.get("choices", ())),
        "above" in rule,
    )
