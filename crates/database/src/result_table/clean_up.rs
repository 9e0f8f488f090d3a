//! Drops the staging tables of earlier attempts.

use crate::{Database, Error, TableName, TableWriter};

/// Drops the staging tables of all attempts of a step. Idempotent.
///
/// An attempt that was killed after its grant may or may not have replaced the result table. If its staging table still
/// exists, it has not. If it does not, the mark of the result table shows whose result it is. A line reports that, or
/// that it is not known: someone has dropped or changed a table since.
///
/// # Errors
/// Those of the database.
pub fn clean_up(
    database: &mut dyn Database,
    table: &str,
    suffix: &str,
    granted_attempt: Option<u32>,
) -> Result<Option<String>, Error> {
    let mut writer = database.writer()?;
    let table = writer.table_name(table);
    let report = granted_attempt.map(|attempt| report(&mut *writer, &table, suffix, attempt)).transpose()?;
    drop_leftovers(&mut *writer, &table, suffix)?;
    Ok(report)
}

fn report(
    writer: &mut dyn TableWriter,
    table: &TableName,
    suffix: &str,
    attempt: u32,
) -> Result<String, Error> {
    let step = suffix.rsplit_once('_').map_or("", |(step, _)| step);
    let own = format!("{step}_{attempt}");
    let staging = table.with_suffix(&own, writer.name_limit());
    if writer.find_table(&staging)?.is_some() {
        return Ok(format!("table {table} was not replaced: the statement ended before that"));
    }
    let unknown = |reason: &str| format!("it is not known whether table {table} was replaced: {reason}");
    let Some(found) = writer.find_table(table)? else {
        return Ok(unknown("there is no table of this name now"));
    };
    Ok(match found.made_by() {
        Some(made_by) if made_by.eq_ignore_ascii_case(&own) => {
            format!("table {table} was replaced: it holds the statement's result")
        }
        Some(other) => format!("table {table} does not hold the statement's result, but that of {other}"),
        None if found.is_marked() => {
            unknown("what has this name now was made by an earlier version of SQLFlow")
        }
        None => unknown("what has this name now was not made by SQLFlow"),
    })
}

pub(super) fn drop_leftovers(
    writer: &mut dyn TableWriter,
    table: &TableName,
    suffix: &str,
) -> Result<(), Error> {
    for staging in leftovers(writer, table, suffix) {
        writer.drop_table(&staging)?;
    }
    Ok(())
}

/// The tables that attempts up to this one may have left. The suffix ends in the attempt's number.
fn leftovers(writer: &dyn TableWriter, table: &TableName, suffix: &str) -> Vec<TableName> {
    let (step, attempt) = suffix.rsplit_once('_').unwrap_or(("", suffix));
    match attempt.parse::<u32>() {
        Err(_) => writer.leftovers(table, suffix),
        Ok(last) => {
            (1..=last).flat_map(|attempt| writer.leftovers(table, &format!("{step}_{attempt}"))).collect()
        }
    }
}
