"""PostgreSQL: finds the tables that a select reads.

A view of the select is created in a transaction that is rolled back. In it, PostgreSQL's catalog lists what the
parsed select depends on: tables, views and functions. Functions with a body in standard SQL are listed in the same
way. The texts of all other functions are searched.
"""

from __future__ import annotations

import re

from sqlflow_submitter.errors import SubmitterError, UserError
from sqlflow_submitter.reads import READS, RunQuery, may_read
from sqlflow_submitter.reads.dependencies import DatabaseObject, ObjectNames, dependencies, function_reason, mentions

VIEW = "sqlflow_reads"

# The objects in pg_depend, and also: the selects of views, the row policies of tables, the tables that inherit, the
# checks of domains, and the types in composite types.
DEPENDENCIES = f"""
WITH RECURSIVE behind(class, object) AS (
  SELECT 'pg_class'::regclass::oid, 'pg_temp.{VIEW}'::regclass::oid
  UNION
  SELECT further.class, further.object FROM behind, LATERAL (
    SELECT refclassid, refobjid FROM pg_depend WHERE classid = behind.class AND objid = behind.object
      AND classid <> 'pg_class'::regclass AND refclassid NOT IN ('pg_language'::regclass, 'pg_extension'::regclass)
    UNION ALL
    SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE behind.class = 'pg_class'::regclass
      AND ev_class = behind.object
    UNION ALL
    SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE behind.class = 'pg_class'::regclass
      AND polrelid = behind.object
    UNION ALL
    SELECT 'pg_class'::regclass, inhrelid FROM pg_inherits WHERE behind.class = 'pg_class'::regclass
      AND inhparent = behind.object
    UNION ALL
    SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE behind.class = 'pg_type'::regclass
      AND contypid = behind.object
    UNION ALL
    SELECT 'pg_type'::regclass, atttypid FROM pg_attribute JOIN pg_class c ON c.oid = attrelid AND c.relkind = 'c'
      WHERE behind.class = 'pg_class'::regclass AND attrelid = behind.object AND NOT attisdropped
  ) AS further(class, object)
)
"""

TEXT = """
CASE WHEN l.lanname IN ('c', 'internal') THEN NULL
  WHEN p.prosrc = '' AND p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE p.prosrc END
"""

CALLED = f"""
WITH RECURSIVE changed(oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f') AND lower(c.relname) IN {{names}}
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  UNION
  SELECT further.oid FROM changed, LATERAL (
    SELECT inhrelid FROM pg_inherits WHERE inhparent = changed.oid
    UNION ALL
    SELECT inhparent FROM pg_inherits WHERE inhrelid = changed.oid
    UNION ALL
    SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = changed.oid
  ) AS further(oid)
), part(class, object) AS (
  SELECT 'pg_trigger'::regclass::oid, oid FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (TABLE changed)
  UNION ALL
  SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid IN (TABLE changed)
  UNION ALL
  SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid IN (TABLE changed) OR contypid IN
    (SELECT atttypid FROM pg_attribute WHERE attrelid IN (TABLE changed))
  UNION ALL
  SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid IN (TABLE changed)
  UNION ALL
  SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid IN (TABLE changed)
)
SELECT 'function ' || p.oid::text, coalesce({TEXT}, '') FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname <> 'pg_catalog' AND p.oid IN (SELECT refobjid FROM pg_depend JOIN part ON classid = class
    AND objid = object WHERE refclassid = 'pg_proc'::regclass)
UNION ALL
SELECT 'rule ' || oid::text, NULL FROM pg_rewrite WHERE ev_type <> '1' AND ev_class IN (TABLE changed)
"""

CREATES = (
    r"\b(create|alter|drop|rename|execute|set_config|pg_settings|dblink\w*)\b"
    r"|\bset\s+(session\s+|local\s+)*(\w*search_path|schema|role|authorization|session_authorization)\b"
)
"""What the text of a function has that may create or change tables, or change how they are found."""

# A function with a parsed body has no text, but a definition. PostgreSQL writes the border of a word in another way.
_HAS_CREATOR = """
SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.prokind <> 'p'
  AND (p.prosrc = '' OR p.prosrc ~* {})
UNION ALL
SELECT 1 FROM pg_rewrite WHERE ev_type <> '1' AND ev_class >= 16384
LIMIT 1
"""

RUNS_TEXT = re.compile(r"(query|table|cursor|schema|database)_to_xml|\bts_stat\b", re.IGNORECASE)
"""PostgreSQL's own functions that run an SQL text."""

COMPOSES = re.compile(r"\bexecute\b|_to_xml|\bts_stat\b|\bspi_|plpy|\bdblink", re.IGNORECASE)
"""Words of a function that may compose an SQL text from its arguments."""

LITERAL = re.compile(r"(?i:\be'((?:[^'\\]|\\.|'')*)')|'((?:[^']|'')*)'|(\$\w*\$)(.*?)\3", re.DOTALL)


def reason(select: str, table: str, name: str, run_query: RunQuery) -> str | None:
    """Returns the reason why a select reads a table, or may read it. None: the select does not read it.

    Args:
        select: the select; it is not executed.
        table: the table, quoted, with its schema if it has one.
        name: the table's name without its schema.
        run_query: queries the database; no transaction may be open.

    Raises:
        UserError: the database rejects the select.
    """

    def further(lookup: ObjectNames) -> list[DatabaseObject]:
        return find(lookup, run_query)

    run_query("BEGIN")
    try:
        # As a subquery, because a view cannot have a column twice. The newline ends a comment.
        run_query(f"CREATE TEMP VIEW {VIEW} AS SELECT 1 AS one FROM ({select}\n) AS sqlflow_select")
        rows = run_query(
            f"{DEPENDENCIES} SELECT 'table', (object = to_regclass({literal(table)}))::text, NULL FROM behind "
            "WHERE class = 'pg_class'::regclass "
            f"UNION ALL SELECT 'function', p.proname::text, {TEXT} FROM behind JOIN pg_proc p ON p.oid = object "
            "JOIN pg_language l ON l.oid = p.prolang WHERE class = 'pg_proc'::regclass "
            "UNION ALL SELECT 'view', c.relname::text, pg_get_viewdef(c.oid) FROM behind JOIN pg_class c "
            "ON c.oid = object WHERE class = 'pg_class'::regclass AND c.relkind IN ('v', 'm')"
        )
    except UserError:
        # For example, the user may not create temporary objects. Then every use of the name counts.
        run_query("ROLLBACK")
        objects = dependencies([DatabaseObject("select", "", select)], further)
        for it in objects:
            if it.text and mentions(it.text, name):
                return may_read(f"{it.kind} {it.name} names it" if it.name else "it names it")
        return None
    except SubmitterError:
        # The connection was lost.
        raise
    else:
        run_query("ROLLBACK")
    if any(kind == "table" and found == "true" for kind, found, _ in rows):
        return READS
    functions = [DatabaseObject("function", str(it), text) for kind, it, text in rows if kind == "function"]
    texts = [select, *(str(text) for kind, _, text in rows if kind == "view")]
    opaque = [it.name for it in functions if it.text is None]
    opaque += [it.group() for it in map(RUNS_TEXT.search, texts) if it]
    if opaque and (mentions(select, name) or any(_has_in_literal(text, name) for text in texts)):
        return may_read(f"{opaque[0]} may run a text, and the select names it")
    known = dependencies([it for it in functions if it.text is not None], further)
    composing = [it.name for it in known if it.kind == "function" and COMPOSES.search(it.text or "")]
    if composing and any(_has_in_literal(text, name) for text in texts):
        return may_read(f"function {composing[0]} may run a text, and a text of the select names it")
    return function_reason(known, name)


def _has_in_literal(text: str, name: str) -> bool:
    return any(mentions(escaped + plain + dollar, name) for escaped, plain, _, dollar in LITERAL.findall(text))


def find(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns the views and functions with some names, without those of PostgreSQL itself."""
    own = "n.nspname NOT IN ('pg_catalog', 'information_schema')"
    found = run_query(
        "SELECT 'view', c.relname::text, pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n "
        f"ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND {own} AND lower(c.relname) IN {_list(lookup.names)} "
        f"UNION ALL SELECT 'function', p.proname::text, coalesce({TEXT}, '') FROM pg_proc p JOIN pg_namespace n "
        "ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang "
        f"WHERE {own} AND lower(p.proname) IN {_list(lookup.calls)}"
    )
    # Overloaded functions count as one.
    texts: dict[tuple[str, str], str] = {}
    for kind, name, text in found:
        texts[kind, name] = texts.get((kind, name), "") + f"{text}\n"
    return [DatabaseObject(kind, name, text) for (kind, name), text in texts.items()]


def find_with_triggers(lookup: ObjectNames, run_query: RunQuery) -> list[DatabaseObject]:
    """Returns also the functions that PostgreSQL calls when rows of a table change, and rules, without a text.

    They belong to triggers, defaults, constraints, policies and indexes, also of tables that inherit, and of tables
    whose foreign keys refer to it.
    """
    found = find(lookup, run_query)
    if not lookup.names:
        return found
    hidden = run_query(CALLED.format(names=_list(lookup.names)))
    return found + [DatabaseObject("function", str(name), None if text is None else str(text)) for name, text in hidden]


def _list(names: object) -> str:
    assert isinstance(names, list)
    return f"({', '.join(map(literal, names)) or 'NULL'})"


def literal(text: str) -> str:
    """Quotes a text so that its meaning does not depend on the session's settings."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


HAS_CREATOR = _HAS_CREATOR.format(literal(CREATES.replace(r"\b", r"\y")))
