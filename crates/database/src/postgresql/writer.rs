//! Writes tables in PostgreSQL, with COPY on a second connection.

use super::copy_binary::BinaryType;
use super::{PostgresqlDatabase, literal};
use crate::{
    Batch, Column, ComputedColumn, ComputedKind, Database, Discard, Error, ErrorKind, ExistingTable, Mark,
    PassthroughColumns, TableName, TableWriter, marker, rows, texts,
};

/// What depends on a table or its row type, and is not a part of it: DROP TABLE would fail. A view has its own name.
const DEPENDENTS: &str = "\
SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
  THEN (SELECT relname::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid = d.objid)
  ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
FROM pg_depend d, (SELECT {table}::oid AS oid) own WHERE d.deptype = 'n' AND (
  d.refclassid = 'pg_class'::regclass AND (d.refobjid = own.oid
    OR d.refobjid IN (SELECT indexrelid FROM pg_index WHERE indrelid = own.oid))
  OR d.refclassid = 'pg_constraint'::regclass
    AND d.refobjid IN (SELECT c.oid FROM pg_constraint c WHERE conrelid = own.oid)
  OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT t.oid FROM pg_type t
    WHERE t.typrelid = own.oid OR t.typelem = (SELECT reltype FROM pg_class c WHERE c.oid = own.oid)))
AND NOT EXISTS (SELECT 1 FROM pg_rewrite r
  WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_constraint c
  WHERE d.classid = 'pg_constraint'::regclass AND c.oid = d.objid AND c.conrelid = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_policy p
  WHERE d.classid = 'pg_policy'::regclass AND p.oid = d.objid AND p.polrelid = own.oid)
AND NOT EXISTS (SELECT 1 FROM pg_trigger t
  WHERE d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND t.tgrelid = own.oid)
AND NOT (d.classid = 'pg_class'::regclass AND d.objid = own.oid)
AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = own.oid))";

/// Indexes, constraints without an index, triggers, policies and rules, and what is granted.
const ATTACHED: &str = "\
SELECT 'index ' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {table}
UNION ALL
SELECT 'constraint ' || conname FROM pg_constraint WHERE conrelid = {table} AND contype IN ('c', 'f')
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = {table} AND NOT tgisinternal
UNION ALL
SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = {table}
UNION ALL
SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = {table}
UNION ALL
SELECT DISTINCT 'privileges of ' || CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = {table} AND a.grantee <> c.relowner";

/// A user's session may take documents only, and a select may have fragments; or it may take NULL in an array for a text.
/// Other texts are read in any session as
/// the reading one prints them.
const INPUT_SETTINGS: &str = "SET xmloption TO content; SET array_nulls TO on";

/// Writes tables on a second connection.
pub(super) struct PostgresqlWriter {
    database: PostgresqlDatabase,
    /// The schema of names without one, if there is any: that in which tables are created. PostgreSQL itself would search
    /// the whole path for other statements, and might drop a table of another schema.
    schema: Option<String>,
    /// The table that is being filled, and the types of its columns.
    filled: Option<(TableName, Vec<Option<BinaryType>>)>,
}

impl PostgresqlWriter {
    pub(super) fn new(mut database: PostgresqlDatabase) -> Result<Self, Error> {
        database.execute(INPUT_SETTINGS, &mut Discard)?;
        let schema = texts(&mut database, "SELECT current_schema()::text")?.pop();
        Ok(Self { database, schema, filled: None })
    }

    fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.database.execute(sql, &mut Discard)
    }

    /// The first row of an internal query, with so many columns.
    fn row<const COLUMNS: usize>(&mut self, sql: &str) -> Result<Option<[Option<String>; COLUMNS]>, Error> {
        let row = rows(&mut self.database, sql)?.into_iter().next();
        Ok(row.and_then(|row| row.try_into().ok()))
    }

    fn oid(&self, table: &TableName) -> String {
        format!("to_regclass({})", literal(&self.quoted(table)))
    }

    /// Adds the mark to a new table.
    fn mark(&mut self, table: &TableName, mark: Mark<'_>) -> Result<(), Error> {
        let oid = self.oid(table);
        let schema = texts(
            &mut self.database,
            &format!(
                "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE \
                 c.oid = {oid}"
            ),
        )?;
        let comment = literal(&mark.comment(schema.first().map(String::as_str)));
        let table = self.quoted(table);
        self.run(&format!("COMMENT ON TABLE {table} IS {comment}"))
    }

    /// The types of a table's columns, as the database made them.
    pub(super) fn types(&mut self, table: &TableName) -> Result<Vec<Option<BinaryType>>, Error> {
        let oid = self.oid(table);
        // A value of an enumerated type is its label, like a text. One of a domain is one of the type below it.
        let query = format!(
            "SELECT (CASE typtype WHEN 'e' THEN 25 WHEN 'd' THEN typbasetype ELSE atttypid END)::int8 FROM \
             pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attrelid = {oid} AND attnum > 0 AND NOT \
             attisdropped ORDER BY attnum"
        );
        let oids = texts(&mut self.database, &query)?;
        Ok(oids.iter().map(|it| it.parse().ok().and_then(BinaryType::of)).collect())
    }

    fn replace(
        &mut self,
        staging: &TableName,
        table: &TableName,
        check: &mut dyn FnMut(&mut dyn TableWriter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        check(self)?;
        self.drop_table(table)?;
        let (staging, name) = (self.quoted(staging), self.database.quote(&table.name));
        self.run(&format!("ALTER TABLE {staging} RENAME TO {name}"))
    }
}

impl TableWriter for PostgresqlWriter {
    fn connection(&mut self) -> &mut dyn Database {
        &mut self.database
    }

    fn quote(&self, name: &str) -> String {
        self.database.quote(name)
    }

    fn default_schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    fn name_limit(&self) -> Option<usize> {
        Some(63)
    }

    fn table_name(&self, text: &str) -> TableName {
        TableName::folded(text, str::to_lowercase)
    }

    fn type_of(&self, kind: ComputedKind) -> &'static str {
        match kind {
            ComputedKind::Bool => "boolean",
            ComputedKind::Int => "bigint",
            ComputedKind::Float => "double precision",
            ComputedKind::Text => "text",
        }
    }

    fn find_table(&mut self, table: &TableName) -> Result<Option<ExistingTable>, Error> {
        let oid = self.oid(table);
        let found = self.row(&format!(
            "SELECT relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), relname::text, nspname::text FROM \
             pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = {oid}"
        ))?;
        let Some([Some(kind), Some(comment), Some(name), schema]) = found else { return Ok(None) };
        let kind = match kind.as_str() {
            "r" => "table",
            "p" => "partitioned table",
            "f" => "foreign table",
            "v" => "view",
            "m" => "materialized view",
            "i" | "I" => "index",
            "S" => "sequence",
            "c" => "composite type",
            _ => "relation",
        };
        Ok(Some(ExistingTable { kind: kind.to_owned(), comment, marker: marker(&name, schema.as_deref()) }))
    }

    fn creation_obstacle(&mut self, table: &TableName) -> Result<Option<String>, Error> {
        let named = table.schema.as_deref().map(|it| it.rsplit('.').next().unwrap_or_default());
        let schema = named.or(self.schema.as_deref()).unwrap_or_default().to_owned();
        let found = if schema.is_empty() {
            "to_regnamespace(current_schema())".to_owned()
        } else {
            format!("to_regnamespace({})", literal(&self.database.quote(&schema)))
        };
        // A table has a type of its own name. An array type gives its name away.
        let found = self.row(&format!(
            "SELECT found::oid::text, coalesce(has_schema_privilege(found::oid, 'CREATE'), false)::text, \
             EXISTS (SELECT 1 FROM pg_type WHERE typname = {}::name AND typnamespace = found::oid AND typrelid = 0 \
             AND typcategory <> 'A')::text FROM (SELECT {found} AS found) AS schema",
            literal(&table.name)
        ))?;
        let [oid, may_create, has_type] = found.unwrap_or_default();
        let is_true = |it: Option<String>| it.as_deref() == Some("true");
        Ok(if oid.is_none() {
            Some(match schema.as_str() {
                "" => "no schema of the search path exists".to_owned(),
                _ => format!("schema {schema} does not exist"),
            })
        } else if schema.starts_with("pg_") {
            Some(format!("PostgreSQL reserves schema {schema}"))
        } else if is_true(has_type) {
            Some("it is a type".to_owned())
        } else if is_true(may_create) {
            None
        } else {
            Some("this user may not create tables in its schema".to_owned())
        })
    }

    fn replacement_obstacle(&mut self, table: &TableName) -> Result<Option<String>, Error> {
        let oid = self.oid(table);
        let found = self.row(&format!(
            "SELECT pg_get_userbyid(c.relowner)::text, (pg_has_role(c.relowner, 'USAGE') OR pg_has_role(n.nspowner, \
             'USAGE'))::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
        ))?;
        let [owner, may_drop] = found.unwrap_or_default();
        if may_drop.as_deref() == Some("true") {
            return Ok(None);
        }
        let owner = owner.unwrap_or_default();
        Ok(Some(format!("it belongs to user {owner}, and only its owner can replace it")))
    }

    fn dependents(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        let query = DEPENDENTS.replace("{table}", &self.oid(table));
        sorted(texts(&mut self.database, &query))
    }

    fn attached(&mut self, table: &TableName) -> Result<Vec<String>, Error> {
        let query = ATTACHED.replace("{table}", &self.oid(table));
        sorted(texts(&mut self.database, &query))
    }

    fn create(
        &mut self,
        table: &TableName,
        kept: Option<PassthroughColumns<'_>>,
        computed: &[ComputedColumn],
        mark: Mark<'_>,
    ) -> Result<(), Error> {
        self.filled = None;
        let name = self.quoted(table);
        let define = |it: &ComputedColumn| self.definition(&it.name, self.type_of(it.kind));
        let definitions: Vec<_> = computed.iter().map(define).collect();
        let Some(kept) = kept else {
            self.run(&format!("CREATE TABLE {name} ({})", definitions.join(", ")))?;
            return self.mark(table, mark);
        };
        self.run(&format!("CREATE TABLE {name} AS {}", kept.without_rows(|it| self.quote(it))))?;
        for definition in &definitions {
            self.run(&format!("ALTER TABLE {name} ADD COLUMN {definition}"))?;
        }
        self.mark(table, mark)
    }

    fn insert(&mut self, table: &TableName, _: &[Column], batch: &Batch) -> Result<(), Error> {
        let (filled, types) = match self.filled.take() {
            Some(filled) if filled.0 == *table => filled,
            _ => (table.clone(), self.types(table)?),
        };
        let name = self.quoted(table);
        let result = self.database.copy(&name, &types, batch);
        self.filled = Some((filled, types));
        result
    }

    fn drop_table(&mut self, table: &TableName) -> Result<(), Error> {
        let table = self.quoted(table);
        self.run(&format!("DROP TABLE IF EXISTS {table}"))
    }

    fn swap(
        &mut self,
        staging: &TableName,
        table: &TableName,
        _suffix: &str,
        check: &mut dyn FnMut(&mut dyn TableWriter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.run("BEGIN")?;
        if let Err(error) = self.replace(staging, table, check) {
            // If the connection is lost, the server rolls back.
            let _ = self.run("ROLLBACK");
            return Err(error);
        }
        self.run("COMMIT").map_err(|error| {
            let is_unclear = error.is_unclear || error.kind == ErrorKind::Unavailable;
            Error { is_unclear, ..error }
        })
    }
}

fn sorted(names: Result<Vec<String>, Error>) -> Result<Vec<String>, Error> {
    names.map(|mut names| {
        names.sort();
        names
    })
}
