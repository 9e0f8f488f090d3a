//! The commands of `docs/security.md`, unchanged, on a machine that others reach; and the tests that it names.

use std::path::Path;
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

#[test]
fn each_promise_names_tests_that_exist() {
    let page = page("docs/security.md");
    let (_, promises) = page.split_once("\n## Promises and their tests\n").unwrap();
    let (promises, _) = promises.split_once("\n## Not promised\n").unwrap();
    let mut sources = String::new();
    for folder in SOURCES {
        read_sources(&repository().join(folder), &mut sources);
    }
    let exists = |part: &str| {
        let declared = [format!("mod {part};"), format!("mod {part} {{"), format!("fn {part}(")];
        declared.iter().any(|it| sources.contains(it))
    };
    let mut promised = 0;
    for row in promises.lines().filter(|it| it.starts_with("| ")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        // In backquotes are also packages and files.
        let quoted = tests.split('`').skip(1).step_by(2);
        let mut names = quoted.filter(|it| it.contains(['_', ':']) && !it.contains('/')).peekable();
        promised += usize::from(names.peek().is_some());
        for name in names {
            let missing = name.split("::").find(|part| !exists(part));
            assert_eq!(missing, None, "{name} does not exist: {row}");
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
