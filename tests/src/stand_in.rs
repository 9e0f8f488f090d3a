//! A stand-in for the submitter: any program as a job's step, with everything else real. The server believes that it is
//! its Python.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::python;
use crate::server::{Setup, program};

/// SQL of one step; what it says does not matter, for the stand-in reads none of it.
pub const STEP: &str = "SELECT 1";

/// Bytes that look random and are the same for the same seed, in pieces of a megabyte: a Python function
/// `pieces(seed, megabytes)`.
pub const PIECES: &str = "
import random
def pieces(seed, megabytes):
    source = random.Random(seed)
    for _ in range(megabytes):
        yield source.randbytes(1 << 20)
";

/// A server whose steps run `code`, a Python program, with `dir` as `sys.argv[1]`; its agents attach at `address` if
/// one is given.
pub fn setup(dir: &Path, code: &str, address: Option<&Path>) -> Setup {
    let main = dir.join("stand_in.py");
    std::fs::write(&main, code).expect("the folder can be written");
    let python = python_that(
        dir,
        "python",
        &format!("exec {} {} {}", python::program().display(), main.display(), dir.display()),
    );
    let mut setup = Setup::new(dir, format!("sqlite://{}", dir.join("none.db").display()))
        .flag(format!("--python={}", python.display()));
    if let Some(address) = address {
        let replace = "for a in \"$@\"; do case $a in unix://*) a=unix://ADDRESS;; esac; set -- \"$@\" \"$a\"; shift; done";
        let text = format!(
            "{}\nexec {} \"$@\"",
            replace.replace("ADDRESS", &address.display().to_string()),
            program("sqlflow-agent").display()
        );
        setup = setup
            .env("SQLFLOW_TEST_PROXIED_AGENTS", "1")
            .flag(format!("--agent={}", script(dir, "agent", &text).display()));
    }
    setup
}

/// A shell script in place of submitters, for `--python`. To a server that asks whether it can import the submitter it is the
/// real Python.
pub fn python_that(dir: &Path, name: &str, text: &str) -> PathBuf {
    let real = python::program();
    script(dir, name, &format!("if [ \"$1\" = -c ]; then exec {} \"$@\"; fi\n{text}", real.display()))
}

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the folder can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    path
}
