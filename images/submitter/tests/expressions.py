"""Builds COLUMN expressions in the JSON form of the server."""

from __future__ import annotations

from typing import Any


def ident(name: str) -> dict[str, Any]:
    return {"ident": name}


def call(name: str, *arguments: Any) -> dict[str, Any]:
    return {"call": name, "args": [expression(argument) for argument in arguments]}


def expression(value: Any) -> dict[str, Any]:
    """Converts a number, list or string to an expression. A string without quotes is an identifier."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return {"list": [expression(item) for item in value]}
    if isinstance(value, int | float):
        return {"unary": "-", "of": {"number": -value}} if value < 0 else {"number": value}
    return {"string": value[1:-1]} if value.startswith('"') else ident(value)
