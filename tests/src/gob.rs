//! `sqlflow.gob`, as other tools read it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::python::repository;

/// The statement in a gob, as Go's own decoder sees it.
pub fn decode_with_go(gob: &Path) -> String {
    // The folder of Go's own installer, which may not be in PATH.
    let installed = Path::new("/usr/local/go/bin/go");
    let mut go = Command::new(if installed.is_file() { installed } else { Path::new("go") });
    go.args(["run", "main.go"]).current_dir(repository().join("tests/data/gob")).env("GO111MODULE", "off");
    let file = File::open(gob).expect("the gob is there");
    let output = go.stdin(file).output().expect("Go is installed: `make test` does that");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a statement is text")
}
