//! Queries of PostgreSQL's catalog.

/// Name of the view that is created for a select, in a transaction that is rolled back.
pub(super) const VIEW: &str = "sqlflow_reads";

/// What the view depends on. These are the objects in pg_depend, and also: the selects of views, the row policies of
/// tables, the tables that inherit, the checks of domains, and the types in composite types.
const DEPENDENCIES: &str = "
WITH RECURSIVE behind(class, object) AS (
  SELECT 'pg_class'::regclass::oid, 'pg_temp.sqlflow_reads'::regclass::oid
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
)";

/// The text of function `p` in language `l`.
const TEXT: &str = "
CASE WHEN l.lanname IN ('c', 'internal') THEN NULL
  WHEN p.prosrc = '' AND p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE p.prosrc END";

/// The functions that PostgreSQL calls when rows of tables with these names change, and rules, without a text.
const CALLED: &str = "
WITH RECURSIVE changed(oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f') AND lower(c.relname) IN {names}
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
SELECT 'function', 'function ' || p.oid::text, coalesce({text}, '') FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname <> 'pg_catalog' AND p.oid IN (SELECT refobjid FROM pg_depend JOIN part ON classid = class
    AND objid = object WHERE refclassid = 'pg_proc'::regclass)
UNION ALL
SELECT 'function', 'rule ' || oid::text, NULL FROM pg_rewrite WHERE ev_type <> '1' AND ev_class IN (TABLE changed)";

/// Whether there is a function or rule that may create or change tables, or change how they are found. A function with
/// a parsed body has no text, but a definition. The pattern is the one of `functions::may_change_names`; PostgreSQL
/// writes the border of a word as `\y`.
pub(super) const HAS_CREATOR: &str = r"
SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.prokind <> 'p'
  AND (p.prosrc = '' OR p.prosrc ~* (
    E'\\y(create|alter|drop|rename|execute|set_config|pg_settings|dblink\\w*)\\y'
    '|\\yset\\s+(session\\s+|local\\s+)*(\\w*search_path|schema|role|authorization|session_authorization)\\y'
  ))
UNION ALL
SELECT 1 FROM pg_rewrite WHERE ev_type <> '1' AND ev_class >= 16384
LIMIT 1";

/// Event triggers that are enabled.
pub(super) const HAS_EVENT_TRIGGERS: &str = "SELECT 1 FROM pg_event_trigger WHERE evtenabled <> 'D' LIMIT 1";

/// What the view depends on: kind, name or whether it is the table, text. The name of the table is a literal.
pub(super) fn behind_view(table: &str) -> String {
    format!(
        "{DEPENDENCIES} SELECT 'table', (object = to_regclass({table}))::text, NULL FROM behind
  WHERE class = 'pg_class'::regclass
UNION ALL SELECT 'function', p.proname::text, {TEXT} FROM behind JOIN pg_proc p ON p.oid = object
  JOIN pg_language l ON l.oid = p.prolang WHERE class = 'pg_proc'::regclass
UNION ALL SELECT 'view', c.relname::text, pg_get_viewdef(c.oid) FROM behind JOIN pg_class c
  ON c.oid = object WHERE class = 'pg_class'::regclass AND c.relkind IN ('v', 'm')"
    )
}

/// The views and functions with names in these lists, without those of PostgreSQL itself: kind, name, text.
pub(super) fn named(names: &str, calls: &str) -> String {
    let own = "n.nspname NOT IN ('pg_catalog', 'information_schema')";
    format!(
        "SELECT 'view', c.relname::text, coalesce(pg_get_viewdef(c.oid), '') FROM pg_class c JOIN pg_namespace n
  ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND {own} AND lower(c.relname) IN {names}
UNION ALL SELECT 'function', p.proname::text, coalesce({TEXT}, '') FROM pg_proc p JOIN pg_namespace n
  ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  WHERE {own} AND lower(p.proname) IN {calls}"
    )
}

/// The functions and rules of tables with names in this list: kind, name, text. A rule has no text, and
/// may do anything.
pub(super) fn called(names: &str) -> String {
    CALLED.replace("{names}", names).replace("{text}", TEXT)
}
