//! Backoff between attempts to attach.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Doubles from 20 ms to 2 s, of which up to a half is jitter: thousands of agents that lost the same server must not
/// come back at one moment.
const POLICY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter()
    .without_max_times();

#[derive(Debug)]
pub(super) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(POLICY.build())
    }
}

impl Backoff {
    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        self.0.next().expect("the policy has no last pause")
    }

    /// Begins again after progress.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds_and_stay_there() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.pause().as_millis()).collect();
        assert!((10..=20).contains(&pauses[0]), "{pauses:?}");
        assert!((1000..=2000).contains(&pauses[39]) && pauses.iter().all(|it| *it <= 2000), "{pauses:?}");
        backoff.reset();
        assert!((10..=20).contains(&backoff.pause().as_millis()));
    }
}
