//! Which files a data source and its statements may open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sqlflow_data_source::Reach;

use super::test_file::File;
use crate::test_servers::{run, texts};
use crate::{Database, Discard};

/// `data.db`, `open/a.db` and `state/state.db`, each with the table `t`.
fn files() -> File {
    let file = File::new();
    fs::create_dir(file.beside("open")).unwrap();
    fs::create_dir(file.beside("state")).unwrap();
    for (name, value) in [("data.db", 7), ("open/a.db", 7), ("state/state.db", 42)] {
        let connection = rusqlite::Connection::open(file.beside(name)).unwrap();
        connection.execute_batch(&format!("CREATE TABLE t (a); INSERT INTO t VALUES ({value})")).unwrap();
    }
    file
}

/// Statements may attach what is in the folder `open`.
fn limited(mut file: File) -> File {
    file.reach = Reach {
        is_clients: false,
        sqlite_folders: Some(vec![real(&file, "open")]),
        state_folder: Some(file.beside("state")),
        private: vec![file.beside("open/private.db")],
    };
    file
}

/// Everything may be attached but the state.
fn of_one_user(mut file: File) -> File {
    file.reach = Reach { state_folder: Some(file.beside("state")), ..Reach::default() };
    file
}

fn real(file: &File, name: &str) -> PathBuf {
    fs::canonicalize(file.beside("")).unwrap().join(name)
}

fn error(database: &mut dyn Database, sql: &str) -> String {
    let error = database.execute(sql, &mut Discard).expect_err(sql);
    assert_eq!(error.kind, crate::ErrorKind::User, "{sql}");
    error.message
}

/// All files below a folder.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(all_files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn missing_file_is_an_error_and_is_not_created() {
    let file = File::new();
    for (option, may_create) in [("", true), ("?mode=rw", true), ("?mode=ro", true), ("", false)] {
        let error = file.connect(option, &[], may_create).err().unwrap().message;
        let expected = format!("cannot open SQLite file {}: no such file; correct", file.path().display());
        assert!(error.starts_with(&expected) && error.contains("?mode=rwc"), "{error}");
        assert!(!file.path().exists());
    }
    drop(file.connect("?mode=rwc", &[], false).unwrap());
    assert!(!file.path().exists(), "no statement creates a table");
    run(&mut *file.connect("?mode=rwc", &[], true).unwrap(), "CREATE TABLE t (a)");
    assert!(file.path().exists());
    let mut database = file.open_existing();
    let other = file.beside("other.db").display().to_string();
    let said = error(&mut *database, &format!("ATTACH '{other}' AS other"));
    assert_eq!(
        said,
        format!(
            "cannot attach SQLite file {other}: no such file; correct the path, or write 'file:{other}?mode=rwc' to create it"
        )
    );
    assert!(!Path::new(&other).exists());
    run(&mut *database, &format!("ATTACH 'file:{other}?mode=rwc' AS other"));
    run(&mut *database, "CREATE TABLE other.t (a)");
    run(&mut *database, &format!("VACUUM INTO '{other}.copy'"));
    assert_eq!(texts(&mut *file.open(), "SELECT name FROM sqlite_master"), ["t"]);
    assert!(Path::new(&format!("{other}.copy")).exists());
}

#[test]
fn statements_attach_only_what_lies_in_the_folders() {
    let file = limited(files());
    symlink(file.beside("data.db"), file.beside("open/link.db")).unwrap();
    symlink(".", file.beside("open/here")).unwrap();
    fs::hard_link(file.beside("state/state.db"), file.beside("open/hard.db")).unwrap();
    fs::write(file.beside("open/private.db"), "").unwrap();
    let before = all_files(&file.beside(""));
    let at = |name: &str| real(&file, name).display().to_string();
    let mut database = file.connect("?mode=rw", &[], true).unwrap();
    for (name, expected) in [
        (at("data.db"), "in no folder for database files of this server; use a file below"),
        (at("open/link.db"), "in no folder for database files"),
        (at("open/../data.db"), "in no folder for database files"),
        (at("open/here/a.db"), "its path has a symbolic link; write"),
        (at("state/state.db"), "it belongs to the state of the server"),
        (at("open/hard.db"), "it belongs to the state of the server"),
        (at("open/private.db"), "it is the operator's"),
        (at("open/new.db"), "no such file"),
        (format!("file:{}?mode=ro", at("data.db")), "in no folder for database files"),
        (format!("file:{}?mode=rwc", at("new.db")), "in no folder for database files"),
        (format!("file:{}", at("open/%2e%2e/data.db")), "by a URI with an escape"),
        (format!("file:///{}", at("data.db")), "by a URI with an escape"),
        (format!("file://{}", at("data.db")), "in no folder for database files"),
        ("data.db".to_owned(), "in no folder for database files"),
        (at("new.db"), "in no folder for database files"),
        (at("none/new.db"), "in no folder for database files"),
        (at("open/none/new.db"), "no such file"),
        (at("state/new.db"), "it belongs to the state of the server"),
    ] {
        for sql in [format!("ATTACH '{name}' AS x"), format!("EXPLAIN ATTACH '{name}' AS x")] {
            let said = error(&mut *database, &sql);
            assert!(said.contains(expected), "{sql}: {said}");
        }
    }
    for sql in ["ATTACH '/' || 'x.db' AS x", "ATTACH (SELECT 'x') AS x"] {
        let said = error(&mut *database, sql);
        assert!(said.contains("that an expression names"), "{said}");
    }
    for into in ["new.db", "state/new.db", "open/hard.db"] {
        let said = error(&mut *database, &format!("VACUUM INTO '{}'", at(into)));
        assert!(said.starts_with("cannot attach SQLite file"), "{said}");
    }
    assert!(error(&mut *database, "PRAGMA temp_store_directory = '/'").contains("it moves files"));
    assert_eq!(all_files(&file.beside("")), before, "nothing is created");

    run(&mut *database, &format!("ATTACH '{}' AS x", at("open/a.db")));
    run(&mut *database, &format!("ATTACH 'file:{}?mode=ro' AS y", at("open/a.db")));
    run(&mut *database, &format!("ATTACH 'file://{}?mode=ro' AS z", at("open/a.db")));
    run(&mut *database, "ATTACH ':memory:' AS m");
    run(&mut *database, "ATTACH '' AS n");
    run(&mut *database, "CREATE TEMP TABLE u AS SELECT a FROM x.t");
    run(&mut *database, "CREATE TABLE m.u (a)");
    assert_eq!(texts(&mut *database, "SELECT a FROM u UNION ALL SELECT a FROM y.t"), ["7", "7"]);
    run(&mut *database, "DETACH n");
    run(&mut *database, "VACUUM");
    run(&mut *database, &format!("VACUUM INTO '{}'", at("open/copy.db")));
    assert!(file.beside("open/copy.db").exists());
}

#[test]
fn single_user_attaches_everything_but_the_state() {
    let file = of_one_user(files());
    symlink(file.beside("open/a.db"), file.beside("link.db")).unwrap();
    symlink(file.beside("state/state.db"), file.beside("state.db")).unwrap();
    fs::hard_link(file.beside("state/state.db"), file.beside("hard.db")).unwrap();
    let mut database = file.connect("", &[], true).unwrap();
    for name in ["state/state.db", "state.db", "hard.db"] {
        let said = error(&mut *database, &format!("ATTACH '{}' AS x", file.beside(name).display()));
        assert!(said.contains("it belongs to the state of the server"), "{said}");
    }
    run(&mut *database, &format!("ATTACH '{}' AS x", file.beside("link.db").display()));
    assert_eq!(texts(&mut *database, "SELECT a FROM x.t"), ["7"]);
}

#[test]
fn own_file_of_a_client_lies_in_the_folders() {
    let mut file = limited(files());
    drop(file.connect("", &[], true).unwrap());
    file.reach.is_clients = true;
    let said = file.connect("", &[], true).err().unwrap().message;
    assert!(said.contains("in no folder for database files"), "{said}");
    let moved = file.beside("moved.db");
    fs::rename(file.path(), &moved).unwrap();
    assert_eq!(file.connect("", &[], true).err().unwrap().message, said, "it does not say what exists");
    fs::rename(&moved, file.path()).unwrap();
    file.reach.sqlite_folders = Some(vec![file.beside("")]);
    run(&mut *file.connect("", &[], true).unwrap(), "INSERT INTO t VALUES (8)");
    file.reach.private = vec![file.path()];
    let said = file.connect("", &[], true).err().unwrap().message;
    assert!(said.contains("use the name of a data source"), "{said}");
}

/// Another program exchanges a link between the moments at which its path is judged and opened.
#[test]
fn file_that_was_exchanged_is_not_read() {
    let file = of_one_user(files());
    let mut database = file.connect("", &[], true).unwrap();
    let (link, state) = (file.beside("link.db"), file.beside("state/state.db"));
    symlink(file.beside("open/a.db"), &link).unwrap();
    let attach = format!("ATTACH '{}' AS x", link.display());
    let refused = while_exchanged(&link, &state, || match database.execute(&attach, &mut Discard) {
        Ok(()) => {
            let read = texts(&mut *database, "SELECT a FROM x.t");
            run(&mut *database, "DETACH x");
            (read != ["7"]).then(|| format!("read {read:?}"))
        }
        // Judged with the other target.
        Err(error) if error.message.starts_with("cannot attach") => None,
        Err(error) => Some(error.message),
    });
    // If it was never opened, nothing had to be refused.
    if let Some(refused) = refused {
        assert!(
            refused.ends_with("state/state.db: it belongs to the state of the server; use another file"),
            "{refused}"
        );
        assert_eq!(error(&mut *database, "SELECT a FROM x.t"), "not authorized");
    }
}

/// Calls the function while a link leads to another target again and again, until it returns something.
fn while_exchanged(link: &Path, other: &Path, mut call: impl FnMut() -> Option<String>) -> Option<String> {
    const CALLS: usize = 3000;
    let (original, is_done) = (fs::read_link(link).unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let new = link.with_extension("new");
            while !is_done.load(Ordering::Relaxed) {
                for target in [other, &original] {
                    symlink(target, &new).unwrap();
                    fs::rename(&new, link).unwrap();
                }
            }
        });
        let returned = (0..CALLS).find_map(|_| call());
        is_done.store(true, Ordering::Relaxed);
        returned
    })
}

#[test]
fn extensions_are_not_loaded() {
    let mut database = files().open();
    let said = error(&mut *database, "SELECT load_extension('x')");
    assert!(["not authorized", "no such function: load_extension"].contains(&said.as_str()), "{said}");
}
