"""Parses a COLUMN clause, for XGBoost.

The feature columns of the language have these meanings:

- `x`: derived from the data, as without a COLUMN clause. `*`: all columns except the label and the columns named
  beside it. `EXCEPT(a, b)`, written as `* EXCEPT (a, b)`: the same without the listed columns.
- `DENSE(x[, shape[, separator]])`, `NUMERIC(…)`: a number. With a shape above 1: a text of that many numbers.
- `SPARSE(x, size[, separator[, type[, pair separator[, type]]]])`: a text of `index:value`, or of indices (value 1).
- `BUCKET(x, [b0, b1 …])`: the number of boundaries that are less than or equal to the value.
- `CATEGORY_ID(x, size)`: whole numbers 0…size-1. `CATEGORY_HASH(x, size)`, `CROSS([a, b …], size)`: a hash below size.
  Trees split these as categories; gblinear reads them as INDICATOR.
- `INDICATOR(c)`: one column for each code, with a 1 for the row's own. If `c` is `SPARSE(…)`, a row has several.
- `WEIGHTED_CATEGORY(c)`: the same with the weights of a `SPARSE` text.
- `SEQ_CATEGORY_ID` and `EMBEDDING` are rejected: tree models learn no order and no vectors.
- A string in place of a column is a name or a regular expression. It means each column whose whole name it matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlflow_submitter.errors import UserError, unknown_name
from sqlflow_submitter.features.spec import (
    BUCKET,
    CATEGORICAL,
    CATEGORY_HASH,
    CATEGORY_ID,
    CROSS,
    DENSE,
    INDICATOR,
    SPARSE,
    Feature,
)
from sqlflow_submitter.step import Expression

NAMED_SEPARATORS = {"COMMA": ",", "SEMICOLON": ";", "COLON": ":", "SPACE": " ", "TAB": "\t", "PIPE": "|"}
MAX_WIDTH = 10_000_000
FUNCTIONS = (
    "DENSE",
    "NUMERIC",
    "SPARSE",
    "BUCKET",
    "CATEGORY_ID",
    "CATEGORY_HASH",
    "CROSS",
    "INDICATOR",
    "WEIGHTED_CATEGORY",
)
UNSUPPORTED = {
    "EMBEDDING": "use INDICATOR or CATEGORY_HASH",
    "SEQ_CATEGORY_ID": "use INDICATOR(CATEGORY_ID(…)), which forgets the order",
}


class Clause:
    """A COLUMN clause, checked against the columns of the select."""

    def __init__(self, expressions: Sequence[Expression], available: Sequence[str], label: str | None) -> None:
        self._available = available
        self._label = label
        self.features: list[Feature] = []
        """Features that the clause defines."""
        self.derived: list[str] = []
        """Columns whose features are derived from the data, in order."""
        stars = False
        left_out: set[str] = set()
        for expression in expressions:
            if expression.get("ident") == "*" or expression.get("string") == "*":
                stars = True
            elif expression.get("call") == "EXCEPT":
                stars = True
                left_out.update(*(self._names(argument, may_be_label=True) for argument in expression["args"]))
            elif "ident" in expression or "string" in expression:
                self.derived += self._names(expression)
            else:
                self.features += self._function(expression)
        if stars:
            # Report a duplicate column here; otherwise the error would blame a COLUMN clause that may not exist.
            locate("column", available, available)
            named = set(self.derived).union(*(feature.columns() for feature in self.features))
            self.derived += [name for name in available if name not in named | left_out and name != label]
        if not self.features and not self.derived:
            raise UserError(f"cannot train: no feature column remains besides the label {label}; select more columns")
        check_distinct(self.derived)

    def _names(self, expression: Expression, may_be_label: bool = False) -> list[str]:
        checked = str if may_be_label else self._checked
        if "ident" in expression:
            return [checked(resolve_column("column", expression["ident"], self._available))]
        pattern = expression["string"]
        if pattern in self._available:
            return [checked(pattern)]
        try:
            names = [name for name in self._available if re.fullmatch(pattern, name) and name != self._label]
        except re.error as error:
            raise UserError(f'COLUMN "{pattern}" is no column and no regular expression: {error}') from error
        if not names:
            raise UserError(unknown_name("column", f'"{pattern}"', self._available, "the select has"))
        return names

    def _checked(self, name: str) -> str:
        if name == self._label:
            raise UserError(f"column {name} is the label: the model would be told the answer; leave it out of COLUMN")
        return name

    def _function(self, expression: Expression) -> list[Feature]:
        """Returns one feature, or one for each column that a pattern matches."""
        if "call" not in expression:
            raise UserError(f"COLUMN holds {render(expression)}; expected a column or one of {', '.join(FUNCTIONS)}")
        name = expression["call"].upper()
        arguments = expression["args"]
        if name in UNSUPPORTED:
            raise UserError(f"feature column {name} is of no use to XGBoost: {UNSUPPORTED[name]}")
        build = BUILDERS.get(name)
        if build is None:
            raise UserError(unknown_name("feature column", expression["call"], FUNCTIONS))
        if not arguments:
            raise UserError(f"{name} needs a column, as in {name}(x, …)")
        return build(self, name, arguments)

    def _dense(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 4)
        width = _size(name, arguments, 1, "shape") if len(arguments) > 1 else 1
        separator = _separator(name, arguments, 2)
        return [
            Feature(DENSE, column=column, width=width, separator=separator)
            for column in self._input_names(name, arguments[0])
        ]

    def _sparse(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 6)
        width = _size(name, arguments, 1, "size")
        separator = _separator(name, arguments, 2)
        pair_separator = _separator(name, arguments, 4) or ":"
        return [
            Feature(SPARSE, column=column, width=width, separator=separator, pair_separator=pair_separator)
            for column in self._input_names(name, arguments[0])
        ]

    def _bucket(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 2)
        if len(arguments) < 2 or "list" not in arguments[1]:
            raise UserError("BUCKET needs its boundaries, as in BUCKET(x, [10, 20])")
        boundaries = [_number(name, item) for item in arguments[1]["list"]]
        if not boundaries or boundaries != sorted(set(boundaries)):
            raise UserError(f"BUCKET boundaries {render(arguments[1])} must increase")
        features = []
        for inner in self._inner(arguments[0], lambda column: Feature(DENSE, column=column)):
            if inner.kind != DENSE or inner.width != 1:
                raise UserError(f"BUCKET needs one number, as in BUCKET(x, [10, 20]); found {render(arguments[0])}")
            features.append(Feature(BUCKET, inputs=[inner], boundaries=boundaries))
        return features

    def _category(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 2)
        size = _size(name, arguments, 1, "number of categories")
        kind = CATEGORY_ID if name == "CATEGORY_ID" else CATEGORY_HASH
        features = []
        for inner in self._inner(arguments[0], lambda column: Feature(kind, column=column, width=size)):
            if inner.kind == SPARSE:
                # A row has several categories. Trees can read them only as indicators.
                features.append(Feature(SPARSE, column=inner.column, width=size, separator=inner.separator))
            elif inner.kind == DENSE and inner.width == 1:
                features.append(Feature(kind, column=inner.column, width=size))
            elif inner.kind == kind:
                features.append(inner)
            else:
                raise UserError(f"{name} needs a column or SPARSE(…); found {render(arguments[0])}")
        return features

    def _cross(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 2)
        if "list" not in arguments[0] or len(arguments[0]["list"]) < 2:
            raise UserError(
                f"CROSS needs a list of two columns or more, as in CROSS([a, b], 100); found {render(arguments[0])}"
            )
        size = _size(name, arguments, 1, "number of categories")
        inputs = []
        for item in arguments[0]["list"]:
            for inner in self._inner(item, lambda column: Feature(CATEGORY_HASH, column=column, width=MAX_WIDTH)):
                if inner.kind == DENSE and inner.width == 1:
                    inner = Feature(CATEGORY_HASH, column=inner.column, width=MAX_WIDTH)
                if inner.kind not in CATEGORICAL and inner.kind != BUCKET:
                    raise UserError(f"CROSS takes columns with one value each; found {render(item)}")
                inputs.append(inner)
        return [Feature(CROSS, inputs=inputs, width=size)]

    def _indicator(self, name: str, arguments: list[Expression]) -> list[Feature]:
        _at_most(name, arguments, 1 if name == "INDICATOR" else 2)
        if "call" not in arguments[0]:
            raise UserError(f"{name} needs categories, as in {name}(CATEGORY_ID({render(arguments[0])}, 10))")
        features = []
        for inner in self._function(arguments[0]):
            if inner.kind in CATEGORICAL or inner.kind == BUCKET:
                features.append(Feature(INDICATOR, inputs=[inner]))
            elif inner.kind == SPARSE:
                features.append(inner)
            else:
                raise UserError(
                    f"{name} needs categories, as in {name}(CATEGORY_ID(x, 10)); found {render(arguments[0])}"
                )
        return features

    def _inner(self, expression: Expression, bare: Callable[[str], Feature]) -> list[Feature]:
        """Returns the features of an argument. `bare` creates the feature of a plain column."""
        if "call" in expression:
            return self._function(expression)
        return [bare(column) for column in self._input_names("COLUMN", expression)]

    def _input_names(self, name: str, expression: Expression) -> list[str]:
        if "call" in expression and expression["call"].upper() in ("DENSE", "NUMERIC"):
            expression = (expression["args"] or [{}])[0]
        if "ident" not in expression and "string" not in expression:
            raise UserError(f"{name} needs a column; found {render(expression)}")
        return self._names(expression)


BUILDERS: dict[str, Callable[[Clause, str, list[Expression]], list[Feature]]] = {
    "DENSE": Clause._dense,
    "NUMERIC": Clause._dense,
    "SPARSE": Clause._sparse,
    "BUCKET": Clause._bucket,
    "CATEGORY_ID": Clause._category,
    "CATEGORY_HASH": Clause._category,
    "CROSS": Clause._cross,
    "INDICATOR": Clause._indicator,
    "WEIGHTED_CATEGORY": Clause._indicator,
}


def resolve_column(what: str, name: str, available: Sequence[str]) -> str:
    """Finds a column of the select by its name. The exact name comes first, then the name in another case.

    Raises:
        UserError: it does not exist; the message has similar names and the existing columns.
    """
    if name in available:
        return name
    folded = [column for column in available if column.lower() == name.lower()]
    if len(folded) == 1:
        return folded[0]
    raise UserError(unknown_name(what, name, available, "the select has"))


def locate(what: str, names: Iterable[str], available: Sequence[str]) -> dict[str, int]:
    """Returns the position of each name among the columns of a select.

    Raises:
        UserError: a column does not exist, or the select has it twice.
    """
    places = {}
    for name in names:
        column = resolve_column(what, name, available)
        if available.count(column) > 1:
            raise UserError(
                f"column {column} occurs {available.count(column)} times in the select; rename each with AS"
            )
        places[name] = available.index(column)
    return places


def check_distinct(derived: Sequence[str]) -> None:
    """Raises UserError if a column is named twice."""
    seen: set[str] = set()
    for name in derived:
        if name in seen:
            raise UserError(f"column {name} is named twice in COLUMN")
        seen.add(name)


def render(expression: Expression | Any) -> str:
    """Formats an expression about as the user wrote it."""
    match expression:
        case {"number": number}:
            return f"{number:g}"
        case {"string": text}:
            return f'"{text}"'
        case {"ident": name}:
            return str(name)
        case {"list": items}:
            return "[" + ", ".join(map(render, items)) + "]"
        case {"call": name, "args": arguments}:
            return f"{name}({', '.join(map(render, arguments))})"
        case {"unary": operator, "of": operand}:
            return f"{operator}{render(operand)}"
        case {"binary": operator, "left": left, "right": right}:
            return f"{render(left)} {operator} {render(right)}"
        case _:
            return "nothing"


def _at_most(name: str, arguments: Sequence[Expression], limit: int) -> None:
    if len(arguments) > limit:
        raise UserError(f"{name} takes at most {limit} argument(s); found {len(arguments)}")


def _number(name: str, expression: Expression) -> float:
    match expression:
        case {"number": number}:
            return float(number)
        case {"unary": "-", "of": {"number": number}}:
            return -float(number)
        case _:
            raise UserError(f"{name} needs a number; found {render(expression)}")


def _size(name: str, arguments: Sequence[Expression], place: int, what: str) -> int:
    if len(arguments) <= place:
        raise UserError(f"{name} needs its {what}, as in {name}({render(arguments[0])}, 10)")
    expression = arguments[place]
    if "list" in expression and len(expression["list"]) == 1:
        expression = expression["list"][0]
    size = _number(name, expression)
    if size != int(size) or not 1 <= size <= MAX_WIDTH:
        raise UserError(f"{name} has the {what} {size:g}; it must be a whole number from 1 to {MAX_WIDTH}")
    return int(size)


def _separator(name: str, arguments: Sequence[Expression], place: int) -> str | None:
    if len(arguments) <= place:
        return None
    match arguments[place]:
        case {"string": text} if text:
            return str(text)
        case {"ident": word} if word.upper() in NAMED_SEPARATORS:
            return NAMED_SEPARATORS[word.upper()]
        case expression:
            raise UserError(f'{name} has the separator {render(expression)}; give it as text, as in ","')
