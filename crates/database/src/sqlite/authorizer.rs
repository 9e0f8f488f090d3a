//! What statements may do, as SQLite reports it while it compiles them: which files they attach, and which tables they
//! read. The wrapper of `rusqlite` panics if a name is not UTF-8. This module and `names` are the only ones with
//! `unsafe`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sqlflow_data_source::{NamedFile, Reach};

pub(super) use raw::Guarded;

/// Settings of the whole process that move files.
const SETTINGS_WITH_FOLDERS: [&str; 2] = ["temp_store_directory", "data_store_directory"];

/// Judges the statements of a connection, for its whole life. `VACUUM INTO` attaches its file, too, when it is executed.
#[derive(Debug, Default)]
pub(super) struct Authorizer {
    reach: Reach,
    /// Whether to deny to attach a file that does not exist, because SQLite would create it.
    denies_new_files: Cell<bool>,
    /// Whether the statement creates the file that it names.
    creates_its_file: Cell<bool>,
    /// Whether a statement was compiled that attaches a file, since this was asked.
    has_attached: Cell<bool>,
    /// Whether a file was opened that may not be: nothing is allowed any more.
    is_closed: Cell<bool>,
    has_denied: Cell<bool>,
    /// Why a statement was refused, until it is taken.
    refusal: RefCell<Option<String>>,
    /// Schema and name of each table that is read, while they are observed. Other bytes than UTF-8 are replaced.
    tables: RefCell<Option<Tables>>,
}

/// Schemas and names of tables.
pub(super) type Tables = BTreeSet<(String, String)>;

impl Authorizer {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, ..Self::default() }
    }

    /// The tables that statements read which are compiled meanwhile.
    pub(super) fn tables_of<T, E>(&self, compile: impl FnOnce() -> Result<T, E>) -> Result<Tables, E> {
        self.tables.replace(Some(Tables::new()));
        let compiled = compile();
        let tables = self.tables.take().unwrap_or_default();
        compiled.map(|_| tables)
    }

    /// Compiles a statement that must not create a file. `None`: it would.
    pub(super) fn without_new_files<T>(&self, compile: impl FnOnce() -> T) -> Option<T> {
        self.denies_new_files.set(true);
        self.has_denied.set(false);
        let compiled = compile();
        self.denies_new_files.set(false);
        (!self.has_denied.take()).then_some(compiled)
    }

    /// Executes a statement that creates the file that it names.
    pub(super) fn with_new_file<T>(&self, execute: impl FnOnce() -> T) -> T {
        self.creates_its_file.set(true);
        let executed = execute();
        self.creates_its_file.set(false);
        executed
    }

    /// Why the last statement was refused.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.take()
    }

    /// Whether a statement was compiled that attaches a file, since the last call.
    pub(super) fn has_attached(&self) -> bool {
        self.has_attached.take()
    }

    /// Refuses all statements from now on.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
    }

    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// A table is read.
    fn reads(&self, schema: Option<&CStr>, table: &CStr) {
        let text = |it: &CStr| it.to_string_lossy().into_owned();
        if let Some(tables) = &mut *self.tables.borrow_mut()
            && !table.is_empty()
        {
            tables.insert((schema.map_or_else(|| "main".to_owned(), text), text(table)));
        }
    }

    /// A file is attached; `None`: an expression names it. Returns whether that is allowed.
    fn attaches(&self, file: Option<&CStr>) -> bool {
        let judged = match file.map(|it| NamedFile::of(it.to_bytes())) {
            Some(NamedFile::Temporary) if !self.denies_new_files.get() => Ok(()),
            Some(NamedFile::File { path, is_created }) => self.judge(&path, is_created),
            None | Some(NamedFile::Temporary | NamedFile::Unclear) if self.denies_new_files.get() => {
                Err("it may create a file".to_owned())
            }
            _ if self.reach.is_unlimited() => Ok(()),
            None => Err("cannot attach a file that an expression names; write its path as a text".to_owned()),
            Some(_) => Err(
                "cannot attach a file by a URI with an escape, a fragment, an authority or two modes; write \
                            its path without file:"
                    .to_owned(),
            ),
        };
        judged.map_err(|why| self.refuse(why)).is_ok()
    }

    /// A setting is read or changed. Returns whether that is allowed.
    fn sets(&self, name: &CStr) -> bool {
        let name = OsStr::from_bytes(name.to_bytes());
        let moves_files = SETTINGS_WITH_FOLDERS.iter().any(|it| name.eq_ignore_ascii_case(it));
        if moves_files && !self.reach.is_unlimited() {
            self.refuse(format!("cannot use PRAGMA {}: it moves files; leave it out", name.display()));
            return false;
        }
        true
    }

    fn refuse(&self, why: String) {
        self.has_denied.set(true);
        self.refusal.replace(Some(why));
    }

    fn judge(&self, path: &Path, is_created: bool) -> Result<(), String> {
        self.has_attached.set(true);
        let cannot = |why: &dyn Display| format!("cannot attach SQLite file {}: {why}", path.display());
        // A relative path begins at the working folder, as in SQLite.
        let absolute = std::path::absolute(path).map_err(|error| cannot(&error))?;
        let judged = (!self.reach.is_unlimited()).then(|| self.reach.attached_file(&absolute));
        // The path before the existence of its file: no refusal says which files exist elsewhere.
        if let Some(Err(refusal)) = &judged
            && refusal.is_of_path()
        {
            return Err(cannot(refusal));
        }
        let may_create = (is_created || self.creates_its_file.get()) && !self.denies_new_files.get();
        if !may_create && absolute.try_exists().is_ok_and(|exists| !exists) {
            return Err(cannot(&format_args!(
                "no such file; correct the path, or write 'file:{}?mode=rwc' to create it",
                path.display()
            )));
        }
        let Some(judged) = judged else { return Ok(()) };
        let real = judged.map_err(|refusal| cannot(&refusal))?;
        if self.reach.sqlite_folders.is_some() && has_links(&absolute, &real) {
            // The file is opened without following links: one could be changed meanwhile.
            return Err(cannot(&format_args!("its path has a symbolic link; write {}", real.display())));
        }
        Ok(())
    }
}

fn has_links(path: &Path, real: &Path) -> bool {
    let plain: PathBuf = path.components().collect();
    plain != real
}

#[expect(unsafe_code)]
mod raw {
    use std::ffi::{c_char, c_int, c_void};
    use std::ops::Deref;
    use std::rc::Rc;

    use rusqlite::ffi;

    use super::{Authorizer, CStr, Connection};

    /// A connection whose statements are judged.
    pub(in super::super) struct Guarded {
        // Closed before the authorizer is dropped.
        connection: Connection,
        authorizer: Rc<Authorizer>,
    }

    impl Guarded {
        pub(in super::super) fn new(connection: Connection, authorizer: Authorizer) -> Self {
            let authorizer = Rc::new(authorizer);
            let pointer = Rc::as_ptr(&authorizer).cast_mut();
            // SAFETY: the connection is open, and used by this thread only. The authorizer is only read through this
            // pointer, and dropped after the connection is closed.
            unsafe { ffi::sqlite3_set_authorizer(connection.handle(), Some(authorize), pointer.cast()) };
            Self { connection, authorizer }
        }

        pub(in super::super) fn authorizer(&self) -> &Authorizer {
            &self.authorizer
        }
    }

    impl Deref for Guarded {
        type Target = Connection;

        fn deref(&self) -> &Connection {
            &self.connection
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
        // SAFETY: it is the pointer of `new`, which is valid while the connection is open. SQLite calls this function on
        // the thread that uses the connection.
        let authorizer = unsafe { &*authorizer.cast::<Authorizer>() };
        if authorizer.is_closed.get() {
            return ffi::SQLITE_DENY;
        }
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
            ffi::SQLITE_PRAGMA if first.is_some_and(|it| !authorizer.sets(it)) => ffi::SQLITE_DENY,
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
