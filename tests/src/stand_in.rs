//! A stand-in for the submitter: any program as a job's step. Everything else is real; the server takes it for its
//! Python.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::python;
use crate::server::{Setup, program};

/// A step that needs Python. The stand-in ignores its SQL.
pub const STEP: &str = "SHOW MODELS";

/// Python that runs the program `stand_in.py`, and reports the end of the statement once it has succeeded, as a
/// submitter does. The bytes are a `SubmitterFrame` with its length: `statement: 0, ended {}`.
const MAIN: &str = "
import os, sys
own, program = os.getpid(), os.path.join(os.path.dirname(sys.argv[0]), 'stand_in.py')
with open(program) as file: code = compile(file.read(), program, 'exec')
try: exec(code, {'__name__': '__main__'})
except SystemExit as end:
    if end.code or os.getpid() != own: raise
if not sys.stdout.closed: sys.stdout.flush()
if os.getpid() == own: os.write(int(os.environ['SQLFLOW_CHANNEL_FD']), b'\\4\\x08\\0\\x32\\0')
";

/// Python function `pieces(seed, megabytes)`: pseudo-random bytes by seed, in pieces of a megabyte.
pub const PIECES: &str = "
import random
def pieces(seed, megabytes):
    source = random.Random(seed)
    for _ in range(megabytes):
        yield source.randbytes(1 << 20)
";

/// A server whose steps run the Python program `code` with `dir` as `sys.argv[1]`. With an `address` its agents attach
/// there.
pub fn setup(dir: &Path, code: &str, address: Option<&Path>) -> Setup {
    let main = dir.join("stand_in_main.py");
    std::fs::write(&main, MAIN).expect("the folder can be written");
    std::fs::write(dir.join("stand_in.py"), code).expect("the folder can be written");
    let python = python_that(
        dir,
        "python",
        &format!("exec {} {} {}", python::program().display(), main.display(), dir.display()),
    );
    let mut setup = Setup::new(dir, format!("sqlite://{}", dir.join("none.db").display()))
        .flag(format!("--python={}", python.display()))
        // Stand-ins write beside the state folder.
        .flag("--confine=off");
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

/// A shell script for `--python` in place of submitters. The server's check of the Python runs the real one.
pub fn python_that(dir: &Path, name: &str, text: &str) -> PathBuf {
    let real = python::program();
    script(dir, name, &format!("if [ \"$1\" = -c ]; then exec {} \"$@\"; fi\n{text}", real.display()))
}

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the folder can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the test owns the file");
    path
}
