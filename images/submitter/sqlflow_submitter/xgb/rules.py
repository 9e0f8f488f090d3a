"""The rules of attributes, objectives and metrics: one document for the submitter and for the server, which checks a
program by it before anything runs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """The values of an attribute."""

    type: str
    """`number`, `whole number`, `boolean`, `text`, `objective`, `metrics`, `eval metrics` or `constraints`."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    open_low: bool = False
    """True: `low` itself is not allowed."""


class EvalMetric(NamedTuple):
    """A metric that XGBoost computes after each round."""

    tasks: tuple[str, ...]
    objective: str | None
    """The only objective it is for, if there is one."""
    argument: str
    """`none`, `optional` or `required`: whether it has one, as in `error@0.7`."""


@cache
def document() -> dict[str, Any]:
    """Reads the document."""
    return json.loads((Path(__file__).parent / "rules.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@cache
def attributes(kind: str) -> dict[str, Rule]:
    """Gives the attributes of a kind of statement: `train`, `predict`, `evaluate` or `explain`."""
    return {name: _rule(rule) for name, rule in document()["attributes"][kind].items()}


@cache
def eval_metrics() -> dict[str, EvalMetric]:
    """Gives XGBoost's metrics by name."""
    return {
        name: EvalMetric(tuple(metric["tasks"]), metric.get("objective"), metric.get("argument", "none"))
        for name, metric in document()["eval_metrics"].items()
    }


def _rule(rule: dict[str, Any]) -> Rule:
    return Rule(
        rule["type"],
        rule.get("above", rule.get("min")),
        rule.get("max"),
        tuple(rule.get("choices", ())),
        "above" in rule,
    )
