//! Failpoints for tests: at a named step the process kills itself, as in a crash of its machine. Debug builds only.

use std::fs::File;

use nix::sys::signal::{Signal, raise};

/// Kills this process if the variable is `<name>=<file>` and the file does not exist yet, which is then created; or if
/// it is `<name>=always`.
fn reach(variable: &str, name: &str) {
    if cfg!(debug_assertions)
        && let Ok(setting) = std::env::var(variable)
        && let Some((_, file)) = setting.split_once('=').filter(|(wanted, _)| *wanted == name)
        && (file == "always" || File::create_new(file).is_ok())
    {
        let _ = raise(Signal::SIGKILL);
    }
}

/// A failpoint of the agent (`SQLFLOW_TEST_FAILPOINT`).
pub fn agent(name: &str) {
    reach("SQLFLOW_TEST_FAILPOINT", name);
}

/// A failpoint of the server (`SQLFLOW_TEST_SERVER_FAILPOINT`).
pub fn server(name: &str) {
    reach("SQLFLOW_TEST_SERVER_FAILPOINT", name);
}
