//! Waiting by polling, for conditions without an event.

use std::time::{Duration, Instant};

/// Time after which a test gives up.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);

/// Blocks until the condition holds, and fails the test after [`LIMIT`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "timeout: waited until {what}");
        std::thread::sleep(PAUSE);
    }
}
