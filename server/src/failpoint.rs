//! Deaths on purpose, in tests: at a named step the server kills itself as a lost machine would. Never in a program that
//! ships.

/// Dies here if `SQLFLOW_TEST_SERVER_FAILPOINT` is `<name>=<file>` and nobody died of it before, which the file remembers.
pub(crate) fn reach(name: &str) {
    if cfg!(debug_assertions)
        && let Ok(setting) = std::env::var("SQLFLOW_TEST_SERVER_FAILPOINT")
        && let Some((_, file)) = setting.split_once('=').filter(|(wanted, _)| *wanted == name)
        && std::fs::File::create_new(file).is_ok()
    {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
