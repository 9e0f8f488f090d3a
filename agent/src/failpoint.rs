//! Deaths on purpose, in tests: at a named step the agent kills itself as a lost machine would. Never in a program that
//! ships.

/// Dies here if `SQLFLOW_TEST_FAILPOINT` is `<name>=<file>` and nobody died of it before, which the file remembers; or if
/// it is `<name>=always`.
pub(crate) fn reach(name: &str) {
    if cfg!(debug_assertions)
        && let Ok(setting) = std::env::var("SQLFLOW_TEST_FAILPOINT")
        && let Some((_, file)) = setting.split_once('=').filter(|(wanted, _)| *wanted == name)
        && (file == "always" || std::fs::File::create_new(file).is_ok())
    {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
