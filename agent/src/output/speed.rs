//! How fast a server takes records. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// A stretch is closed after this long, so that the figure follows a link that changes.
const STRETCH: Duration = Duration::from_secs(2);
/// Shorter stretches say nothing.
const SHORTEST: Duration = Duration::from_millis(20);

/// Counts only while there is something to send: an idle link is not a slow one.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Since when, and how much.
    stretch: Option<(Instant, u64)>,
    last: u64,
}

impl Speed {
    /// `bytes` were acknowledged; `is_busy`: more is waiting.
    pub(super) fn acked(&mut self, now: Instant, bytes: u64, is_busy: bool) {
        match &mut self.stretch {
            Some((since, sum)) => {
                *sum += bytes;
                let took = now.duration_since(*since);
                if took >= SHORTEST {
                    self.last = (*sum as f64 / took.as_secs_f64()) as u64;
                }
                if took >= STRETCH {
                    self.stretch = Some((now, 0));
                }
            }
            // Its own time is not known.
            None => self.stretch = Some((now, 0)),
        }
        if !is_busy {
            self.stretch = None;
        }
    }

    /// 0: not known.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut speed = Speed::default();
        speed.acked(at(0), 5, true);
        speed.acked(at(100), 100_000, true);
        speed.acked(at(200), 100_000, false);
        assert_eq!(speed.bytes_per_second(), 1_000_000);
        speed.acked(at(60_000), 10, true);
        speed.acked(at(60_100), 200_000, true);
        assert_eq!(speed.bytes_per_second(), 2_000_000, "the minute without output is no slow minute");
    }
}
