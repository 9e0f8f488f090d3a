//! Whether an old table may be replaced.

use crate::{Error, ExistingTable, TableName, TableWriter, reads, texts};

/// The attribute that allows a statement to replace a table without a marker, or a table that it reads.
const REPLACE: &str = "result.replace";
/// Limit for counting the rows of a replaced table, so that counting stays fast.
const COUNTED_ROWS: u64 = 1_000_000;

/// Checks that the result table may be replaced, if it exists.
pub(super) fn check_replaceable(
    writer: &mut dyn TableWriter,
    table: &TableName,
    selects: &[&str],
    replace: bool,
) -> Result<(), Error> {
    let Some(existing) = writer.find_table(table)? else { return Ok(()) };
    let kind = &existing.kind;
    if kind != "table" {
        let article = if kind == "index" { "an" } else { "a" };
        return Err(Error::user(format!(
            "cannot write table {table}: it is {article} {kind}; choose another name"
        )));
    }
    if let Some(obstacle) = writer.replacement_obstacle(table)? {
        return Err(Error::user(format!("cannot write table {table}: {obstacle}; choose another name")));
    }
    let dependents = writer.dependents(table)?;
    if !dependents.is_empty() {
        return Err(Error::user(format!(
            "cannot write table {table}: {} depends on it, so the database cannot replace it; drop that first, or \
             choose another name",
            dependents.join(", ")
        )));
    }
    if replace {
        return Ok(());
    }
    let is_marked = existing.is_marked();
    let reason = if is_marked { read(writer, table, selects)? } else { Some(origin(&existing)) };
    let Some(mut reason) = reason else { return Ok(()) };
    let rows = count(writer, table)?;
    if !is_marked {
        reason = format!("it exists ({rows}) and {reason}");
    }
    Err(Error::user(format!(
        "cannot write table {table}: {reason}; choose another name (WITH {REPLACE} = true replaces it: what it holds \
         now, {rows}, is lost)"
    )))
}

/// Why a table does not count as SQLFlow's.
fn origin(existing: &ExistingTable) -> String {
    match existing.marked_as() {
        None => "this release of SQLFlow did not make it".to_owned(),
        Some(name) if existing.marker.ends_with(&format!(".{name}")) => {
            "its marker is of an earlier version, which does not show whether it was copied to here"
                .to_owned()
        }
        Some(name) => format!("it was copied, moved or renamed: SQLFlow made it as {name}"),
    }
}

/// Why one of the selects reads a table, or may read it.
fn read(writer: &mut dyn TableWriter, table: &TableName, selects: &[&str]) -> Result<Option<String>, Error> {
    for select in selects.iter().filter(|it| !it.is_empty()) {
        if let Some(reason) = reads::reason(writer.database()?, select, table)? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// The number of rows of a table, in words.
pub(super) fn count(writer: &mut dyn TableWriter, table: &TableName) -> Result<String, Error> {
    let table = writer.quoted(table);
    let limit = COUNTED_ROWS + 1;
    let query = format!("SELECT count(*) FROM (SELECT 1 AS one FROM {table} LIMIT {limit}) AS counted");
    let counted = texts(writer.database()?, &query)?;
    let rows = counted.first().and_then(|it| it.parse().ok()).unwrap_or(0);
    Ok(match rows {
        1 => "1 row".to_owned(),
        0..=COUNTED_ROWS => format!("{rows} rows"),
        _ => format!("more than {COUNTED_ROWS} rows"),
    })
}
