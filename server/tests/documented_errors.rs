//! The tables of errors in `docs/writing-a-client.md`: they have the codes and details that services of clients answer with,
//! and no others.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The codes of gRPC that are errors.
const CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// What answers agents, and what only compares codes.
const OTHERS: [&str; 7] = [
    "api/agent_socket.rs",
    "api/agent_tls.rs",
    "api/attach",
    "api/compressed.rs",
    "api/executor_auth.rs",
    "metrics",
    "web",
];
/// The library answers so before a service is called.
const OF_THE_LIBRARY: [&str; 1] = ["UNIMPLEMENTED"];
/// Codes of the library that clients get as another one.
const TRANSLATED: [&str; 1] = ["OUT_OF_RANGE"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// What answers clients, without tests.
fn answering() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let is_other = |file: &Path| {
        let file = file.strip_prefix(&root).unwrap().to_str().unwrap();
        OTHERS.iter().any(|other| file.starts_with(other))
    };
    let of_clients = files.iter().filter(|file| !is_other(file));
    let texts = of_clients.map(|file| {
        let text = fs::read_to_string(file).unwrap();
        text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
    });
    // The states of jobs are codes, too.
    texts.collect::<String>().replace("job_status::Code::", "").replace("task_status::Code::", "")
}

/// `NotFound` of `NOT_FOUND`.
fn camel(code: &str) -> String {
    let words = code.split('_').map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()));
    words.collect()
}

/// Rows of the tables of errors: code and detail.
fn documented() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/writing-a-client.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Errors\n").unwrap();
    let cells = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
        let [code, _, detail, ""] = cells[..] else { return None };
        CODES.contains(&code).then(|| (code.to_owned(), detail.to_owned()))
    });
    cells.collect()
}

#[test]
fn tables_have_every_code_that_clients_get() {
    let text = answering();
    let is_answered = |code: &&&str| {
        let constructor = format!("::{}(", code.to_lowercase());
        text.contains(&format!("Status{constructor}"))
            || text.contains(&format!("Self{constructor}"))
            || text.contains(&format!("Code::{}", camel(code)))
    };
    let answered = CODES.iter().filter(is_answered).filter(|code| !TRANSLATED.contains(code));
    let answered: BTreeSet<String> = answered.chain(&OF_THE_LIBRARY).map(|code| (*code).to_owned()).collect();
    let documented: BTreeSet<String> = documented().into_iter().map(|(code, _)| code).collect();
    assert_eq!(documented, answered);
}

#[test]
fn tables_have_every_detail_that_clients_get() {
    let text = answering();
    let attached = text.split("ErrorDetails::with_").skip(1).map(|rest| {
        let name = rest.split_once('(').unwrap().0;
        camel(&name.to_uppercase())
    });
    let attached: BTreeSet<String> = attached.collect();
    let documented = documented().into_iter().filter_map(|(_, detail)| {
        let (name, _) = detail.strip_prefix('`')?.split_once('`')?;
        Some(name.to_owned())
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), attached);
}
