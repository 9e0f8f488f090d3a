//! What SQLite reports of a statement while it compiles the statement. The wrapper of `rusqlite` panics if a name is
//! not UTF-8. This module and `names` are the only ones with `unsafe`.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::Connection;

/// Notes the tables that statements read, and may deny to attach files.
#[derive(Debug, Default)]
pub(super) struct Authorizer {
    /// Whether to deny to attach a file that does not exist, because SQLite would create it.
    pub(super) denies_new_files: bool,
    pub(super) has_denied: bool,
    /// Schema and name of each table that is read. Other bytes than UTF-8 are replaced.
    pub(super) tables: BTreeSet<(String, String)>,
}

impl Authorizer {
    /// Compiles statements under this authorizer.
    pub(super) fn observe<T>(&mut self, connection: &Connection, compile: impl FnOnce() -> T) -> T {
        let _installed = raw::install(connection, self);
        compile()
    }

    /// A table is read.
    fn reads(&mut self, schema: Option<&CStr>, table: &CStr) {
        let text = |it: &CStr| it.to_string_lossy().into_owned();
        if !table.is_empty() {
            self.tables.insert((schema.map_or_else(|| "main".to_owned(), text), text(table)));
        }
    }

    /// A file is attached; `None`: an expression names it. Returns whether that is allowed.
    fn attaches(&mut self, file: Option<&CStr>) -> bool {
        let exists = file.is_some_and(|it| Path::new(OsStr::from_bytes(it.to_bytes())).exists());
        let is_denied = self.denies_new_files && !exists;
        self.has_denied |= is_denied;
        !is_denied
    }
}

#[expect(unsafe_code)]
mod raw {
    use std::ffi::{c_char, c_int, c_void};
    use std::marker::PhantomData;

    use rusqlite::ffi;

    use super::{Authorizer, CStr, Connection};

    /// An authorizer that is installed until this is dropped.
    pub(super) struct Installed<'a> {
        connection: &'a Connection,
        authorizer: PhantomData<&'a mut Authorizer>,
    }

    pub(super) fn install<'a>(connection: &'a Connection, authorizer: &'a mut Authorizer) -> Installed<'a> {
        let authorizer: *mut Authorizer = authorizer;
        // SAFETY: the connection is open while it is borrowed. The authorizer is borrowed, and used by nobody else,
        // until `Installed` is dropped, which removes it.
        unsafe { ffi::sqlite3_set_authorizer(connection.handle(), Some(authorize), authorizer.cast()) };
        Installed { connection, authorizer: PhantomData }
    }

    impl Drop for Installed<'_> {
        fn drop(&mut self) {
            // SAFETY: the connection is open while it is borrowed.
            unsafe {
                ffi::sqlite3_set_authorizer(self.connection.handle(), None, std::ptr::null_mut());
            }
        }
    }

    unsafe extern "C" fn authorize(
        authorizer: *mut c_void,
        action: c_int,
        first: *const c_char,
        _second: *const c_char,
        schema: *const c_char,
        _by: *const c_char,
    ) -> c_int {
        // SAFETY: it is the pointer of `install`. SQLite calls this function on the thread that compiles a statement,
        // and not again before it has returned.
        let authorizer = unsafe { &mut *authorizer.cast::<Authorizer>() };
        // SAFETY: SQLite's texts are null, or valid during this call and end with a NUL.
        let (first, schema) = unsafe { (text(first), text(schema)) };
        match action {
            ffi::SQLITE_READ => {
                if let Some(table) = first {
                    authorizer.reads(schema, table);
                }
                ffi::SQLITE_OK
            }
            ffi::SQLITE_ATTACH if !authorizer.attaches(first) => ffi::SQLITE_DENY,
            _ => ffi::SQLITE_OK,
        }
    }

    /// # Safety
    /// The text is null, or valid for this lifetime and ends with a NUL.
    unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
        // SAFETY: as the caller promises.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }
}
