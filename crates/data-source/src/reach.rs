//! What a job may reach by its data source. The server decides, checks what it can see at Run, and passes the decision
//! to the data process, which obeys it where the files are.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Maximum number of entries of the state folder in which a second name of its files is searched.
const MAX_ENTRIES: usize = 1000;

/// What a job may reach by its data source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reach {
    /// Whether the client brought the data source. Then nothing of the server's user goes with it.
    pub is_clients: bool,
    /// Folders with the files of SQLite and DuckDB that clients may name and attach. `None`: any folder.
    pub sqlite_folders: Option<Vec<PathBuf>>,
    /// The server's state folder, in which no database file of a job lies.
    pub state_folder: Option<PathBuf>,
    /// Files that clients may not name or attach: secrets of the operator, and files of data sources with a name.
    pub private: Vec<PathBuf>,
}

/// Why a file is not opened; the end of a sentence that begins with its path.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The file system does not show it.
    #[error("{0}")]
    Unseen(io::Error),
    /// A symbolic link leads to no file.
    #[error("it is a symbolic link to a file that does not exist; correct the path")]
    Dangling,
    /// It is not below a configured folder.
    #[error("it lies in no folder for database files of this server; {}", folders(.0))]
    Outside(Vec<PathBuf>),
    /// It lies in the state folder, or is another name of a file there.
    #[error("it belongs to the state of the server; use another file")]
    State,
    /// It is the operator's.
    #[error("it is the operator's, and no session names it; use the name of a data source")]
    Private,
}

impl Refusal {
    /// Whether the path itself is refused. Otherwise the file system shows no file that could be judged.
    #[must_use]
    pub fn is_of_path(&self) -> bool {
        match self {
            Self::Outside(_) | Self::State | Self::Private => true,
            Self::Unseen(_) | Self::Dangling => false,
        }
    }
}

fn folders(all: &[PathBuf]) -> String {
    if all.is_empty() {
        return "there is none: use a data source that the operator has named".to_owned();
    }
    let all: Vec<_> = all.iter().map(|it| it.display().to_string()).collect();
    format!("use a file below {}", all.join(" or "))
}

impl Reach {
    /// Name of the secret with which the server passes it to the data process, as JSON. User code could change it in
    /// the step document. Without it the data process would have no limits, so both sides take the name from here.
    pub const SECRET: &str = "data_source_reach";

    /// The real path of the data source's own file, which need not exist.
    ///
    /// # Errors
    /// It may not be opened, or its folder does not exist.
    pub fn own_file(&self, file: &Path) -> Result<PathBuf, Refusal> {
        let real = real_path(file).map_err(|unseen| match self.is_clients {
            true => self.hide(file, unseen),
            false => unseen,
        })?;
        self.judge_own(&real)?;
        Ok(real)
    }

    /// The real path of another file that a statement names, which need not exist.
    ///
    /// # Errors
    /// It may not be opened, or its folder does not exist.
    pub fn attached_file(&self, file: &Path) -> Result<PathBuf, Refusal> {
        let real = real_path(file).map_err(|unseen| self.hide(file, unseen))?;
        self.judge_named(&real)?;
        Ok(real)
    }

    /// Judges the data source's own file by its real path.
    ///
    /// # Errors
    /// It may not be opened.
    pub fn judge_own(&self, real: &Path) -> Result<(), Refusal> {
        // The operator knows where files of data sources lie.
        if self.is_clients { self.judge_named(real) } else { self.judge_state(real) }
    }

    /// Judges a file that a client names, by its real path.
    ///
    /// # Errors
    /// It may not be opened.
    pub fn judge_named(&self, real: &Path) -> Result<(), Refusal> {
        self.judge_state(real)?;
        if self.private.iter().any(|it| is_at(real, it)) {
            return Err(Refusal::Private);
        }
        match &self.sqlite_folders {
            Some(folders) if !folders.iter().any(|it| is_below(real, it)) => {
                Err(Refusal::Outside(folders.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Whether every file may be opened.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.sqlite_folders.is_none() && self.state_folder.is_none() && self.private.is_empty()
    }

    /// The refusal of a file that a client names and that is not seen. Outside of the folders it does not say what is there.
    fn hide(&self, file: &Path, unseen: Refusal) -> Refusal {
        let Some(folders) = &self.sqlite_folders else { return unseen };
        // As it is written, since it has no real path.
        let goes_up = file.components().any(|it| it == Component::ParentDir);
        let is_in = |folder: &PathBuf| {
            file.starts_with(folder) || fs::canonicalize(folder).is_ok_and(|folder| file.starts_with(folder))
        };
        if !goes_up && folders.iter().any(is_in) { unseen } else { Refusal::Outside(folders.clone()) }
    }

    fn judge_state(&self, real: &Path) -> Result<(), Refusal> {
        let Some(state) = &self.state_folder else { return Ok(()) };
        let is_state = is_below(real, state) || has_second_name_in(real, state);
        if is_state { Err(Refusal::State) } else { Ok(()) }
    }
}

/// The path without links. Of a file that does not exist, its folder's, with its name.
fn real_path(file: &Path) -> Result<PathBuf, Refusal> {
    let error = match fs::canonicalize(file) {
        Ok(real) => return Ok(real),
        Err(error) => error,
    };
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Refusal::Unseen(error));
    };
    if error.kind() != io::ErrorKind::NotFound {
        return Err(Refusal::Unseen(error));
    }
    if fs::symlink_metadata(file).is_ok() {
        return Err(Refusal::Dangling);
    }
    Ok(fs::canonicalize(folder).map_err(Refusal::Unseen)?.join(name))
}

/// Whether a real path lies below this folder, which may be a link.
fn is_below(real: &Path, folder: &Path) -> bool {
    fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(&folder) && real != folder)
}

/// Whether a real path is this file or lies below this folder, under whichever name.
fn is_at(real: &Path, other: &Path) -> bool {
    let Ok(other) = fs::canonicalize(other) else { return real == other };
    let is_same = || Some(identity(&fs::metadata(real).ok()?) == identity(&fs::metadata(&other).ok()?));
    real.starts_with(&other) || is_same().unwrap_or(false)
}

/// Whether a file has another name in this folder, by a hard link.
fn has_second_name_in(real: &Path, folder: &Path) -> bool {
    let Ok(found) = fs::metadata(real) else { return false };
    if found.is_dir() || found.nlink() < 2 {
        return false;
    }
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let mut entries = entries.take(MAX_ENTRIES).flatten();
    entries.any(|entry| entry.metadata().is_ok_and(|it| identity(&it) == identity(&found)))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// A file that a statement of SQLite names, in `ATTACH` or `VACUUM INTO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedFile {
    /// Its database is in memory, or in a temporary file.
    Temporary,
    /// A file.
    File {
        /// Its path, as it is written.
        path: PathBuf,
        /// Whether a missing file is created by choice.
        is_created: bool,
    },
    /// A URI that is read in more than one way, such as one with escapes.
    Unclear,
}

impl NamedFile {
    /// Reads a name as SQLite does.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        use std::os::unix::ffi::OsStrExt as _;

        let file = |path: &[u8], is_created| Self::File { path: OsStr::from_bytes(path).into(), is_created };
        let Some(uri) = name.strip_prefix(b"file:") else {
            return match name {
                b"" | b":memory:" => Self::Temporary,
                path => file(path, false),
            };
        };
        // The authority of most URIs, which is none.
        let uri = uri.strip_prefix(b"//").filter(|it| it.starts_with(b"/")).unwrap_or(uri);
        // Escapes, fragments and other authorities need no second reader: a plain path says the same.
        if uri.starts_with(b"//") || uri.iter().any(|byte| b"%#".contains(byte)) {
            return Self::Unclear;
        }
        let (path, options) = match uri.iter().position(|byte| *byte == b'?') {
            Some(at) => (&uri[..at], &uri[at + 1..]),
            None => (uri, &b""[..]),
        };
        let mut modes = options.split(|byte| *byte == b'&').filter_map(|it| it.strip_prefix(b"mode="));
        match (path, modes.next(), modes.next()) {
            (_, _, Some(_)) => Self::Unclear,
            (b"" | b":memory:", _, _) => Self::Temporary,
            (path, mode, None) => file(path, mode == Some(&b"rwc"[..])),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `state/state.db`, `data/a.db` and `own.db` in a folder of their own.
    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["state", "data/below"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["state/state.db", "data/a.db", "own.db"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        symlink("../own.db", dir.path().join("data/out.db")).unwrap();
        symlink("../state", dir.path().join("data/state")).unwrap();
        symlink("below", dir.path().join("data/in")).unwrap();
        symlink("nowhere.db", dir.path().join("data/dangling.db")).unwrap();
        fs::hard_link(dir.path().join("state/state.db"), dir.path().join("data/hard.db")).unwrap();
        fs::hard_link(dir.path().join("own.db"), dir.path().join("data/private.db")).unwrap();
        dir
    }

    fn verdict(found: Result<PathBuf, Refusal>) -> &'static str {
        match found {
            Ok(_) => "open",
            Err(Refusal::Unseen(_)) => "unseen",
            Err(Refusal::Dangling) => "dangling",
            Err(Refusal::Outside(_)) => "outside",
            Err(Refusal::State) => "state",
            Err(Refusal::Private) => "private",
        }
    }

    #[test]
    fn links_and_second_names_do_not_lead_out_of_the_folders() {
        let dir = files();
        let at = |name: &str| dir.path().join(name);
        let real = |name: &str| fs::canonicalize(dir.path()).unwrap().join(name);
        let limited = Reach {
            is_clients: true,
            sqlite_folders: Some(vec![at("data")]),
            state_folder: Some(at("state")),
            private: vec![at("own.db")],
        };
        let anywhere = Reach { sqlite_folders: None, private: Vec::new(), ..limited.clone() };
        for (file, in_folders, in_any) in [
            ("data/a.db", "open", "open"),
            ("data/new.db", "open", "open"),
            ("data/in/new.db", "open", "open"),
            ("data/below/../a.db", "open", "open"),
            ("data/../elsewhere.db", "outside", "open"),
            ("data/../own.db", "private", "open"),
            ("data/out.db", "private", "open"),
            ("data/private.db", "private", "open"),
            ("data/state/state.db", "state", "state"),
            ("data/state/new.db", "state", "state"),
            ("data/hard.db", "state", "state"),
            ("state/state.db", "state", "state"),
            ("data/dangling.db", "dangling", "dangling"),
            ("data/none/a.db", "unseen", "unseen"),
            ("none/a.db", "outside", "unseen"),
            ("data/none/../../none/a.db", "outside", "unseen"),
            ("own.db/a.db", "outside", "unseen"),
            ("data", "outside", "open"),
            ("datax.db", "outside", "open"),
        ] {
            let found = [limited.own_file(&at(file)), limited.attached_file(&at(file))].map(verdict);
            assert_eq!(found, [in_folders; 2], "{file}");
            assert_eq!(verdict(anywhere.own_file(&at(file))), in_any, "{file}");
        }
        // Through a link, too.
        symlink("data", at("link")).unwrap();
        let linked = Reach { sqlite_folders: Some(vec![at("link")]), ..limited.clone() };
        assert_eq!(verdict(linked.own_file(&at("data/a.db"))), "open");
        assert_eq!(verdict(linked.own_file(&at("link/none/a.db"))), "unseen");
        assert_eq!(verdict(linked.own_file(&real("data/none/a.db"))), "unseen");

        let operators = Reach { is_clients: false, ..limited };
        assert_eq!(verdict(operators.own_file(&at("own.db"))), "open");
        assert_eq!(verdict(operators.own_file(&at("none/a.db"))), "unseen");
        assert_eq!(verdict(operators.attached_file(&at("own.db"))), "private");
        assert_eq!(verdict(operators.own_file(&at("data/hard.db"))), "state");
        let closed = Reach { sqlite_folders: Some(Vec::new()), ..operators };
        let error = closed.attached_file(&at("data/a.db")).unwrap_err().to_string();
        assert!(error.contains("use a data source that the operator has named"), "{error}");
        assert_eq!(verdict(Reach::default().attached_file(&at("state/state.db"))), "open");
    }

    #[test]
    fn names_in_statements_are_read_as_by_sqlite() {
        let file = |path: &str, is_created| NamedFile::File { path: path.into(), is_created };
        for (name, expected) in [
            ("", NamedFile::Temporary),
            (":memory:", NamedFile::Temporary),
            ("file:", NamedFile::Temporary),
            ("file::memory:?cache=shared", NamedFile::Temporary),
            ("/a b%20.db", file("/a b%20.db", false)),
            ("FILE:/a", file("FILE:/a", false)),
            ("file:/a?mode=ro", file("/a", false)),
            ("file:/a?mode=rwc&cache=private", file("/a", true)),
            ("file:/a?mode=memory", file("/a", false)),
            ("file:/a?mode=ro&mode=rwc", NamedFile::Unclear),
            ("file:/a%2fb", NamedFile::Unclear),
            ("file:/a#b", NamedFile::Unclear),
            ("file:///a", file("/a", false)),
            ("file:///a?mode=rwc", file("/a", true)),
            ("file:////a", NamedFile::Unclear),
            ("file://", NamedFile::Unclear),
            ("file://localhost/a", NamedFile::Unclear),
        ] {
            assert_eq!(NamedFile::of(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn it_passes_from_the_server_to_the_data_process() {
        let reach = Reach {
            is_clients: true,
            sqlite_folders: Some(vec!["/data".into()]),
            state_folder: Some("/state".into()),
            private: vec!["/x".into()],
        };
        let text = serde_json::to_string(&reach).unwrap();
        assert_eq!(serde_json::from_str::<Reach>(&text).unwrap(), reach);
        assert!(!reach.is_unlimited() && serde_json::from_str::<Reach>("{}").unwrap().is_unlimited());
    }
}
