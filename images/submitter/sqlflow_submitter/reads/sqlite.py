"""SQLite: finds the views and tables that a select names.

SQLite itself reports to the driver which tables a select reads, but not those of parts that its parser removes, such
as `0 AND EXISTS (…)`. So the tables of FROM clauses are also searched in the texts of the select and of its views.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sqlflow_submitter.reads import RunQuery
from sqlflow_submitter.reads.dependencies import DatabaseObject, ObjectNames

# Comments, which may end with the text, and then literals, names and signs.
TOKEN = re.compile(
    r"--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<literal>'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?P<word>[\w$\u0080-\U0010ffff]+)|(?P<sign>\S)',
    re.DOTALL,
)

ENDS_FROM = {"where", "group", "having", "order", "limit", "union", "intersect", "except", "select", "values", "window"}


class NamedTable(NamedTuple):
    """A table or view in a FROM clause or after IN, in lower case."""

    schema: str | None
    name: str


class _Token(NamedTuple):
    kind: str
    text: str
    """In lower case, without quotes."""

    def is_name(self) -> bool:
        return self.kind != "sign"

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text in words

    def is_sign(self, sign: str) -> bool:
        return self.kind == "sign" and self.text == sign


END = _Token("sign", "")


def find(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views with some names."""
    if not lookup.names:
        return []
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in lookup.names)
    views = f"type = 'view' AND lower(name) IN ({names})"
    rows = run_query(
        f"SELECT 'main.' || name, sql FROM main.sqlite_master WHERE {views} "
        f"UNION ALL SELECT 'temp.' || name, sql FROM temp.sqlite_master WHERE {views}"
    )
    return [DatabaseObject("view", str(name), str(text)) for name, text in rows]


def names_table(select: str, schema: str, name: str, run_query: RunQuery) -> bool:
    """Returns whether a select names a table, or a view that it depends on does."""
    wanted = NamedTable(schema.lower(), name.lower())
    searched: set[NamedTable] = set()
    new = [(named_tables(select), "main")]
    while new:
        # A name without a schema means the view's own.
        found = {NamedTable(it.schema or here, it.name) for tables, here in new for it in tables}
        if wanted in found:
            return True
        views = find(ObjectNames(sorted({it.name for it in found - searched}), ()), run_query)
        searched |= found
        new = [(named_tables(view.text or ""), view.name.partition(".")[0]) for view in views]
    return False


def named_tables(text: str) -> set[NamedTable]:
    """Returns the tables that a text names. A name that a WITH clause of it defines is not one."""
    tokens = list(_tokens(text))
    defined = set(_defined(tokens))
    return {it for it in _named(tokens) if it.schema or it.name not in defined}


def _tokens(text: str) -> Iterator[_Token]:
    for match in TOKEN.finditer(text):
        kind, part = match.lastgroup, match.group()
        if kind in ("literal", "quoted"):
            yield _Token(kind, part[1:-1].replace(part[0] * 2, part[0]).lower())
        elif kind:
            yield _Token(kind, part.lower())


def _named(tokens: list[_Token]) -> Iterator[NamedTable]:
    # For each open parenthesis: whether this position is in a FROM clause.
    is_from = [False]
    # Whether a table or a parenthesis with tables comes next.
    is_next = False
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else END
        after = [*tokens[place + 1 : place + 3], END, END]
        if token.is_sign("("):
            is_from.append(is_next)
        elif token.is_sign(")"):
            if len(is_from) > 1:
                is_from.pop()
            is_next = False
        elif token.is_word("from", "join"):
            # `a IS DISTINCT FROM b` has no table.
            if not before.is_word("distinct"):
                is_from[-1] = is_next = True
        elif token.is_word("in"):
            # `x IN t`
            if after[0].is_name():
                is_next = True
        elif token.is_sign(","):
            is_next = is_from[-1]
        elif token.is_word(*ENDS_FROM):
            is_from[-1] = is_next = False
        elif is_next and token.is_name():
            if after[0].is_sign(".") and after[1].is_name():
                yield NamedTable(token.text, after[1].text)
            else:
                yield NamedTable(None, token.text)
            is_next = False


def _defined(tokens: list[_Token]) -> Iterator[str]:
    """Returns the names that WITH clauses define: `WITH name AS (`, with columns or MATERIALIZED perhaps."""
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else END
        if not token.is_name() or not (before.is_word("with", "recursive") or before.is_sign(",")):
            continue
        after = place + 1
        if after < len(tokens) and tokens[after].is_sign("("):
            while after < len(tokens) and not tokens[after].is_sign(")"):
                after += 1
            after += 1
        if after < len(tokens) and tokens[after].is_word("as"):
            after += 1
            while after < len(tokens) and tokens[after].is_word("not", "materialized"):
                after += 1
            if after < len(tokens) and tokens[after].is_sign("("):
                yield token.text
