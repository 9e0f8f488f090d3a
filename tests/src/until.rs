//! Waiting for what can only be looked at.

use std::time::{Duration, Instant};

/// Time after which a test gives up.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);

/// Blocks until the condition holds, and fails the test if it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::sleep(PAUSE);
    }
}
