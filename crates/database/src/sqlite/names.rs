//! Names and declared types of the columns of a statement. SQLite does not check that a name is UTF-8, and `rusqlite`
//! panics if one is not.

use std::ffi::{CStr, c_char, c_int};

use rusqlite::{Connection, Statement, ffi};

use crate::Column;

/// The columns of a statement, which was compiled from this text. Other bytes than UTF-8 are replaced.
pub(super) fn columns(connection: &Connection, statement: &Statement<'_>, sql: &str) -> Option<Vec<Column>> {
    let count = c_int::try_from(statement.column_count()).ok()?;
    if count == 0 {
        return Some(Vec::new());
    }
    raw::columns(connection, count, sql)
}

#[expect(unsafe_code)]
mod raw {
    use super::{CStr, Column, Connection, c_char, c_int, ffi};

    /// Looks for the statement among those of the connection, because `rusqlite` does not reveal it. Those of virtual
    /// tables have other texts.
    pub(super) fn columns(connection: &Connection, count: c_int, sql: &str) -> Option<Vec<Column>> {
        // SAFETY: the connection is open while it is borrowed, and so are its statements, since no other thread uses it.
        // A statement's texts are valid until the statement is executed or finalized; they are copied at once.
        unsafe {
            let database = connection.handle();
            let mut statement = ffi::sqlite3_next_stmt(database, std::ptr::null_mut());
            while !statement.is_null() {
                let text = ffi::sqlite3_sql(statement);
                let is_same = !text.is_null() && sql.as_bytes().starts_with(CStr::from_ptr(text).to_bytes());
                if is_same && ffi::sqlite3_column_count(statement) == count {
                    let column = |place| Column {
                        name: copied(ffi::sqlite3_column_name(statement, place)),
                        database_type: copied(ffi::sqlite3_column_decltype(statement, place)),
                        kind: None,
                    };
                    return Some((0..count).map(column).collect());
                }
                statement = ffi::sqlite3_next_stmt(database, statement);
            }
        }
        None
    }

    /// # Safety
    /// The text is null, or valid and ends with a NUL.
    unsafe fn copied(text: *const c_char) -> String {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: as the caller promises.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}
