"""MySQL and MariaDB: finds the tables that a select reads.

The optimiser's trace begins with each SELECT as parsed, before optimisation. MariaDB's trace has the names of tables
without their databases. So a table is read if two conditions hold: the trace has a table of this name, and the select
or a view that it depends on has the name where it can mean this table. If the server has no trace, or the user may
not see it, the second condition alone decides. The texts of stored functions are searched, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlflow_submitter.errors import UserError
from sqlflow_submitter.reads import READS, RunQuery, may_read
from sqlflow_submitter.reads.dependencies import DatabaseObject, ObjectNames, dependencies, function_reason

CREATES = r"\b(create|drop)\b"
"""What the text of a function or trigger has that may create or drop a temporary table."""

# For the text of a function that this user cannot see, there is NULL.
HAS_CREATOR = """
(SELECT 1 FROM information_schema.triggers WHERE lower(action_statement) REGEXP 'create|drop' LIMIT 1)
UNION ALL
(SELECT 1 FROM information_schema.routines WHERE routine_type <> 'PROCEDURE' AND routine_schema <> 'sys'
  AND coalesce(lower(routine_definition), 'create') REGEXP 'create|drop' LIMIT 1)
"""

TRACE_BYTES = 16 * 1024 * 1024


class Token(NamedTuple):
    text: str
    is_quoted: bool

    def is_word(self, *words: str) -> bool:
        return not self.is_quoted and self.text.lower() in words

    def is_name(self, name: str) -> bool:
        return self.text.lower() == name.lower()


def reason(select: str, schema: str | None, name: str, run_query: RunQuery) -> str | None:
    """Returns the reason why a select reads a table, or may read it. None: the select does not read it.

    Args:
        select: the select; it is not executed.
        schema: the table's database; None means the session's.
        name: the table's name.
        run_query: queries the database.

    Raises:
        UserError: the database rejects the select.
    """
    ((default, mode),) = run_query("SELECT DATABASE(), @@sql_mode")
    schema = schema or str(default)
    escapes = "NO_BACKSLASH_ESCAPES" not in str(mode)
    parsed = _parsed(select, run_query)
    objects = dependencies([DatabaseObject("select", "", select)], lambda lookup: find(lookup, run_query))
    # The server prints literals with backslashes in any SQL mode.
    is_parsed = parsed is None or any(_is_read(tokens(text, escapes=True), name) for text in parsed)
    for it in objects:
        if it.kind == "view" and not it.text:
            return may_read(f"this user cannot see the text of view {it.name}")
        # A name without a database means the view's own database.
        here = it.name.partition(".")[0] if it.kind == "view" else str(default)
        if is_parsed and it.kind != "function" and _may_refer_to(it.text or "", schema, name, here, escapes):
            return READS if parsed is not None else may_read(f"{it.kind} {it.name}".strip() + " names it")
    return function_reason(objects, name)


def find(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views and the stored functions of some names, in all databases."""
    # The server opens each table that it describes, and views are slow: ask only for these names.
    named = run_query(
        "SELECT table_schema, table_name FROM information_schema.tables "
        f"WHERE table_type = 'VIEW' AND table_name IN ({_list(lookup.names)})"
    )
    views = [
        DatabaseObject("view", f"{schema}.{name}", _view_text(str(schema), str(name), run_query))
        for schema, name in named
    ]
    routines = run_query(
        "SELECT CONCAT(routine_schema, '.', routine_name), routine_definition "
        f"FROM information_schema.routines WHERE routine_name IN ({_list(lookup.calls)}) "
        # In MariaDB, the functions of a package are in the package's text.
        f"OR (routine_type LIKE 'PACKAGE%' AND routine_name IN ({_list(lookup.names)}))"
    )
    return views + [DatabaseObject("function", str(name), text) for name, text in routines]


def find_with_triggers(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views, the stored functions, and the triggers of tables of some names, in all databases."""
    found = find(lookup, run_query)
    if not lookup.names:
        return found
    triggers = run_query(
        "SELECT CONCAT(trigger_schema, '.', trigger_name), action_statement FROM information_schema.triggers "
        f"WHERE event_object_table IN ({_list(lookup.names)})"
    )
    return found + [DatabaseObject("function", f"trigger {name}", str(text)) for name, text in triggers]


def _view_text(schema: str, name: str, run_query: RunQuery) -> str | None:
    found = run_query(
        "SELECT view_definition FROM information_schema.views "
        f"WHERE table_schema = {_list([schema])} AND table_name = {_list([name])}"
    )
    return str(found[0][0]) if found and found[0][0] else None


def _list(names: Any) -> str:
    return ", ".join(f"_utf8mb4 X'{name.encode().hex()}'" for name in names) or "NULL"


def _parsed(select: str, run_query: RunQuery) -> list[str] | None:
    """Returns each SELECT within a select, as the server parsed it. None if the server does not show it."""
    try:
        run_query(f"SET optimizer_trace = 'enabled=on', optimizer_trace_max_mem_size = {TRACE_BYTES}")
        try:
            run_query(f"EXPLAIN {select}")
            found = run_query(
                "SELECT trace, missing_bytes_beyond_max_mem_size + insufficient_privileges "
                "FROM information_schema.optimizer_trace"
            )
        finally:
            run_query("SET optimizer_trace = 'enabled=off'")
        ((trace, missing),) = found
        parsed = list(_expanded(json.loads(trace)))
    except (UserError, ValueError):
        return None
    return parsed if parsed and not int(missing) else None


def _expanded(trace: Any) -> Iterator[str]:
    if isinstance(trace, dict):
        for key, value in trace.items():
            if key == "expanded_query":
                yield str(value)
            else:
                yield from _expanded(value)
    elif isinstance(trace, list):
        for value in trace:
            yield from _expanded(value)


def tokens(text: str, escapes: bool) -> list[Token]:
    """Returns names and signs, without literals and comments. Text in double quotes counts as a name."""
    inside = r"(?:[^'\\]|\\.|'')*" if escapes else r"(?:[^']|'')*"
    pattern = (
        rf"'{inside}'|/\*M?!\d*|/\*.*?\*/|\*/|--(?=\s)[^\n]*|\#[^\n]*"
        r"|(?P<back>`(?:[^`]|``)*`)|(?P<double>\"(?:[^\"]|\"\")*\")|(?P<word>[\w$\u0080-\uffff]+)|(?P<sign>[^\s'])"
    )
    found = []
    for match in re.finditer(pattern, text, re.DOTALL):
        kind = match.lastgroup
        if kind in ("back", "double"):
            quote = match.group()[0]
            found.append(Token(match.group()[1:-1].replace(quote * 2, quote), True))
        elif kind:
            found.append(Token(match.group(), False))
    return found


def _is_read(parsed: list[Token], name: str) -> bool:
    """Returns whether a parsed SELECT has a table of this name: after `from`, `join`, or a parenthesis after these."""
    before: Token | None = None
    for place, token in enumerate(parsed):
        if token.text == "(" and not token.is_quoted and before and before.is_word("from", "join", "straight_join"):
            continue
        if before and before.is_word("from", "join", "straight_join") and _ends_at(parsed, place, name):
            return True
        before = token
    return False


def _ends_at(parsed: list[Token], place: int, name: str) -> bool:
    """Returns whether the name at this position, with or without a database, is this table's."""
    while place + 2 < len(parsed) and parsed[place + 1].text == ".":
        place += 2
    return parsed[place].is_name(name)


def _may_refer_to(text: str, schema: str, name: str, here: str, escapes: bool) -> bool:
    """Returns whether a text can mean a table, and not a part of another name or what a WITH clause defines."""
    found = tokens(text, escapes)
    for place, token in enumerate(found):
        if not token.is_name(name) or _text_at(found, place + 1) == ".":
            continue
        if _text_at(found, place - 1) == ".":
            if (_text_at(found, place - 2) or "").lower() == schema.lower():
                return True
        elif schema.lower() == here.lower() and not _is_defined(found, place):
            return True
    return False


def _is_defined(found: list[Token], place: int) -> bool:
    """Returns whether a WITH clause defines the name at this position."""
    name = found[place].text
    for start in range(place + 1):
        body = _body(found, start) if found[start].is_name(name) else None
        if body is None:
            continue
        if start == place:
            return True
        is_recursive = any(token.is_word("recursive") for token in found[:start])
        begins = body if is_recursive else _closing(found, body)
        # The definition holds until the parenthesis around the WITH clause is closed.
        if begins < place < _closing(found, begins):
            return True
    return False


def _body(found: list[Token], place: int) -> int | None:
    """Returns the position of the parenthesis that opens the definition of this name in a WITH clause, or None."""
    if not (found[place - 1].is_word("with", "recursive") or _text_at(found, place - 1) == ",") or place == 0:
        return None
    after = place + 1
    if _text_at(found, after) == "(":
        after = _closing(found, after) + 1
    is_body = after + 1 < len(found) and found[after].is_word("as") and found[after + 1].text == "("
    return after + 1 if is_body else None


def _closing(found: list[Token], place: int) -> int:
    """Returns the position of the parenthesis that closes the one here, or else the one around it, or the end."""
    depth = 1
    for at in range(place + 1, len(found)):
        if not found[at].is_quoted:
            depth += {"(": 1, ")": -1}.get(found[at].text, 0)
        if depth == 0:
            return at
    return len(found)


def _text_at(found: list[Token], place: int) -> str | None:
    return found[place].text if 0 <= place < len(found) else None
