"""What each column is taken for, as the log and `model_meta.json` show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_LINES = 200
"""Columns of a table in the log; the model has all of them."""
HEAD = ("column", "declared", "taken as", "distinct", "missing", "warnings")


class ColumnReport:
    """One column of a TRAIN's select."""

    def __init__(self, name: str, declared: str, taken_as: str) -> None:
        self.name = name
        self.declared = declared
        """The database's name for its type; empty where it has none."""
        self.taken_as = taken_as
        self.distinct: int | None = None
        """Different values, missing ones not counted; None where they are not counted."""
        self.more_distinct = False
        """Counting stopped: there are more."""
        self.missing = 0
        self.warnings: list[str] = []
        """A word or two each."""
        self.sentences: list[str] = []
        """The same at length, for the log."""

    def warn(self, word: str, sentence: str) -> None:
        self.warnings.append(word)
        self.sentences.append(sentence)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "declared": self.declared,
            "taken_as": self.taken_as,
            "distinct": self.distinct,
            "more_distinct": self.more_distinct,
            "missing": self.missing,
            "warnings": self.warnings,
        }

    def cells(self) -> tuple[str, ...]:
        distinct = "-" if self.distinct is None else f"{'>' if self.more_distinct else ''}{self.distinct}"
        warnings = ", ".join(self.warnings)
        return self.name, self.declared or "-", self.taken_as, distinct, str(self.missing), warnings


def table(reports: Sequence[ColumnReport]) -> list[str]:
    """Gives the lines of a table, and of what is to be said at length."""
    rows = [HEAD, *(tuple(map(_cell_text, report.cells())) for report in reports[:MAX_LINES])]
    lines = aligned(rows)
    if len(reports) > MAX_LINES:
        lines.append(f"… and {len(reports) - MAX_LINES} more columns; model_meta.json has all")
    sentences = [f"warning: column {report.name}: {text}" for report in reports for text in report.sentences]
    lines += sentences[:MAX_LINES]
    if len(sentences) > MAX_LINES:
        lines.append(f"… and {len(sentences) - MAX_LINES} more warnings")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lays out rows of cells as columns."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell_text(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= 60 else cell[:59] + "…"
