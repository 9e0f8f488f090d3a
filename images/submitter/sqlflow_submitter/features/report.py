"""Reports how each column was read, for the log and `model_meta.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_LINES = 200
"""Maximum number of columns in the log's table. The model has all of them."""
HEAD = ("column", "declared", "taken as", "distinct", "missing", "warnings")


class ColumnReport:
    """The report about one column of a TRAIN statement's select."""

    def __init__(self, name: str, declared: str, taken_as: str) -> None:
        self.name = name
        self.declared = declared
        """The database's name for its declared type; empty if it has none."""
        self.taken_as = taken_as
        self.distinct: int | None = None
        """Number of distinct values, without missing ones. None if they were not counted."""
        self.more_distinct = False
        """Whether there are more than `distinct`, because counting stopped."""
        self.missing = 0
        self.warnings: list[str] = []
        """Short warnings, of a few words each."""
        self.sentences: list[str] = []
        """The same warnings as sentences, for the log."""

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
    """Returns the lines of the table and of the warnings."""
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
    """Pads cells so that columns align."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell_text(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= 60 else cell[:59] + "…"
