"""Tables as plain text, for `repr`."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

from sqlflow.values import Cell

SHOWN_ROWS = 20
MAX_WIDTH = 40
"""Maximum number of characters of a value."""


def shown_table(names: Sequence[str], rows: Iterable[Sequence[Cell]], count: int) -> str:
    """The first rows, aligned, and the number of all rows."""
    shown = list(itertools.islice(rows, SHOWN_ROWS))
    texts = [[shown_cell(cell) for cell in row] for row in shown]
    heads = [_clean(name) for name in names]
    widths = [max([_width(head), *(_width(row[place]) for row in texts)]) for place, head in enumerate(heads)]
    is_number = [
        all(row[place] is None or isinstance(row[place], int | float | Decimal) for row in shown)
        for place in range(len(heads))
    ]
    lines = [" | ".join(_padded(head, width, False) for head, width in zip(heads, widths, strict=True)).rstrip()]
    lines.append("-+-".join("-" * width for width in widths))
    for row in texts:
        cells = zip(row, widths, is_number, strict=True)
        lines.append(" | ".join(_padded(text, width, right) for text, width, right in cells).rstrip())
    more = f", the first {len(shown)} shown" if len(shown) < count else ""
    lines.append(f"({count:,} row{'' if count == 1 else 's'}{more})")
    return "\n".join(lines)


def shown_cell(cell: Cell) -> str:
    """A value for people, in one line."""
    match cell:
        case None:
            return "NULL"
        case bool():
            return str(cell).lower()
        case bytes():
            return _clean("\\x" + cell[:MAX_WIDTH].hex())
        case _:
            return _clean(str(cell))


def _clean(text: str) -> str:
    text = "".join(character if character.isprintable() else "�" for character in text[: MAX_WIDTH + 1])
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 1] + "…"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
