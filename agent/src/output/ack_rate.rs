//! Speed at which a server acknowledges records. Pure: the caller provides the time.

use std::time::{Duration, Instant};

/// Length of one measurement, so that the speed follows changes of the link.
const MEASUREMENT: Duration = Duration::from_secs(2);
/// Minimum length of a measurement.
const SHORTEST: Duration = Duration::from_millis(20);

/// Measures only while there is something to send: an idle link is not a slow one.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Start of the measurement, and bytes since.
    measurement: Option<(Instant, u64)>,
    last: u64,
}

impl Speed {
    /// `bytes` were acknowledged; `is_busy`: more is waiting.
    pub(super) fn acked(&mut self, now: Instant, bytes: u64, is_busy: bool) {
        match &mut self.measurement {
            Some((since, sum)) => {
                *sum += bytes;
                let took = now.duration_since(*since);
                if took >= SHORTEST {
                    self.last = (*sum as f64 / took.as_secs_f64()) as u64;
                }
                if took >= MEASUREMENT {
                    self.measurement = Some((now, 0));
                }
            }
            // The time for these bytes is unknown.
            None => self.measurement = Some((now, 0)),
        }
        if !is_busy {
            self.measurement = None;
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
        assert_eq!(speed.bytes_per_second(), 2_000_000, "a minute without output does not count");
    }
}
