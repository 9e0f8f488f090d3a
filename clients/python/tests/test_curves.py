"""Curves of a training."""

from __future__ import annotations

from sqlflow._notebook.curves import Curves
from sqlflow.events import Metrics


def test_names_are_not_formulas() -> None:
    curves = Curves()
    for step in range(3):
        curves.add(Metrics(position=step, step=step, values={"$x_{$-rm$se^{$": 1.0, "$y^^$": 2.0}, kept=False))
    assert curves.png().startswith(b"\x89PNG")
