//! The commands of `docs/security.md`, unchanged, on a machine that others reach; and the tests that it names.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlflow_tests::access;
use sqlflow_tests::documents::{commands, page};
use sqlflow_tests::python::repository;
use sqlflow_tests::server::program;

/// Folders with Rust.
const SOURCES: [&str; 7] = ["agent", "crates", "data", "proto", "server", "sqlflowctl", "tests"];

/// Appends the text of all Rust files in a folder.
fn read_sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// What the last cell of a row names.
#[derive(Debug, PartialEq)]
enum Named<'a> {
    /// A file or folder of the repository.
    Path(&'a str),
    /// A test, or a module with tests.
    Test {
        /// Its crate, or its folder of integration tests. `None`: it is in any such folder.
        package: Option<&'a str>,
        /// The module that it is in.
        module: &'a str,
        name: &'a str,
    },
}

/// What a cell names in backquotes. A package is followed by a colon, and its tests end at a semicolon. A name without a
/// module is in the module of the one before.
fn named(cell: &str) -> Vec<Named<'_>> {
    let pieces: Vec<&str> = cell.split('`').collect();
    let (mut package, mut module) = (None, "");
    let mut all = Vec::new();
    for piece in pieces.windows(3).step_by(2) {
        let [before, quoted, after] = [piece[0], piece[1], piece[2]];
        if after.starts_with(':') {
            (package, module) = (Some(quoted), "");
        } else if quoted.contains('/') {
            all.push(Named::Path(quoted));
        } else if let Some((path, name)) = quoted.rsplit_once("::") {
            if before.contains(';') {
                package = None;
            }
            module = path;
            all.push(Named::Test { package, module, name });
        } else {
            all.push(Named::Test { package, module, name: quoted });
        }
    }
    all
}

/// The folder of integration tests of a package; all of them without one.
fn test_folders(package: Option<&str>) -> Vec<PathBuf> {
    let tests = repository().join("tests");
    match package {
        Some(package) => vec![tests.join(package.trim_start_matches("tests/"))],
        None => std::fs::read_dir(tests).unwrap().map(|it| it.unwrap().path()).collect(),
    }
}

/// Whether it is there; `sources` is the text of all Rust files.
fn exists(named: &Named<'_>, sources: &str) -> bool {
    let (package, module, name) = match named {
        Named::Path(path) => return repository().join(path).exists(),
        Named::Test { package, module, name } => (*package, *module, *name),
    };
    let files = test_folders(package).into_iter().map(|folder| folder.join(format!("{module}.rs")));
    let texts: Vec<String> = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    if package.is_none() || !texts.is_empty() {
        return texts.iter().any(|text| text.contains(&format!("fn {name}(")));
    }
    // A test of a crate: its modules may be in any file.
    module.split("::").chain([name]).all(|part| {
        let declared = [format!("mod {part};"), format!("mod {part} {{"), format!("fn {part}(")];
        declared.iter().any(|it| sources.contains(it))
    })
}

#[test]
fn cell_names_tests_of_packages_and_files() {
    let test = |package, module, name| Named::Test { package, module, name };
    let cell = "`a::b`, `c`; `e2e`: `d::e::f`, `g::h`; its counterpart `i`; with IPv6: `j::k`; `images/x.py`";
    let expected = [
        test(None, "a", "b"),
        test(None, "a", "c"),
        test(Some("e2e"), "d::e", "f"),
        test(Some("e2e"), "g", "h"),
        test(Some("e2e"), "g", "i"),
        test(None, "j", "k"),
        Named::Path("images/x.py"),
    ];
    assert_eq!(named(cell), expected);
}

#[test]
fn name_in_another_file_does_not_exist() {
    let mut sources = String::new();
    read_sources(&repository().join("tests"), &mut sources);
    let test = |package, module| Named::Test { package, module, name: "name_in_another_file_does_not_exist" };
    for there in [
        test(None, "documented"),
        test(Some("hostile"), "documented"),
        test(Some("tests/hostile"), "documented"),
    ] {
        assert!(exists(&there, &sources), "{there:?}");
    }
    for missing in [
        test(None, "other_user"),
        test(None, ""),
        test(None, "hostile::documented"),
        test(Some("hostile"), "other_user"),
        Named::Path("tests/hostile/missing.rs"),
    ] {
        assert!(!exists(&missing, &sources), "{missing:?}");
    }
}

#[test]
fn each_promise_names_tests_that_exist() {
    let page = page("docs/security.md");
    let (_, promises) = page.split_once("\n## Promises and their tests\n").unwrap();
    let (promises, _) = promises.split_once("\n## Not promised\n").unwrap();
    let mut sources = String::new();
    for folder in SOURCES {
        read_sources(&repository().join(folder), &mut sources);
    }
    let mut promised = 0;
    for row in promises.lines().filter(|it| it.starts_with("| ")) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let all = named(cell);
        promised += usize::from(all.iter().any(|it| matches!(it, Named::Test { .. })));
        for one in all {
            assert!(exists(&one, &sources), "{one:?} does not exist: {row}");
        }
    }
    assert!(promised > 70, "{promised} rows");
}

#[test]
fn commands_of_the_page_secure_a_server() {
    let block = commands("docs/security.md", "sqlflow-server token");
    let lines: Vec<&str> = block.lines().collect();
    let [token, server, login] = lines[..] else { panic!("three commands: {block}") };
    let script = format!(
        "set -e
        ip link set lo up; ip addr add 192.0.2.7/32 dev lo
        printf '127.0.0.1 localhost\\n192.0.2.7 sqlflow.example.com\\n' > hosts; mount --bind hosts /etc/hosts
        token=$({token}
        )
        {server} 2> log & server=$!
        trap 'kill $server; wait $server' EXIT
        until grep -q 'is ready' log; do kill -0 $server || {{ cat log >&2; exit 9; }}; sleep 0.05; done
        echo \"$token\" | {login}
        sqlflowctl list > /dev/null; echo listed
        sqlflowctl logout; sqlflowctl --server https://sqlflow.example.com:50051 list || echo unknown"
    );
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let folder = program("sqlflow-server").parent().unwrap().display().to_string();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &script])
        .env_clear()
        .env("PATH", format!("{folder}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("HOME", dir.path())
        .env("SSL_CERT_FILE", "ca.crt")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("logged in") || String::from_utf8_lossy(&output.stderr).contains("logged in"),
        "{output:?}"
    );
    assert!(said.contains("listed\n") && said.ends_with("unknown\n"), "{output:?}");
}
