//! Every message, field, enum, value and call of the protos says what it is.

use std::fs;
use std::path::{Path, PathBuf};

fn protos(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => protos(&path),
            false => vec![path],
        })
        .collect()
}

/// Whether a line declares something: `… = 1;`, or the beginning of a block that has a name.
fn is_declaration(line: &str) -> bool {
    let has_number = line
        .strip_suffix(';')
        .and_then(|it| it.rsplit_once("= "))
        .is_some_and(|(_, it)| it.parse::<u32>().is_ok());
    has_number
        || ["message ", "enum ", "service ", "rpc ", "oneof "].iter().any(|word| line.starts_with(word))
}

#[test]
fn everything_has_a_comment() {
    // At run time: the program may have been compiled in another clone that shares the target folder.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let files = protos(&Path::new(&folder).join("sqlflow"));
    assert!(files.len() >= 5);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut before = "";
        for line in text.lines().map(str::trim) {
            let is_told = !is_declaration(line) || before.starts_with("//");
            assert!(is_told, "{}: {line:?} has no comment", file.display());
            before = line;
        }
    }
}
