//! Samples of one quantity, and their statistics.

use std::time::{Duration, Instant};

/// A quantity that was measured.
#[derive(Debug)]
pub struct Measurement {
    /// Its name in the report, for programs.
    pub name: &'static str,
    /// Its title, for people.
    pub what: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// Name of the measurement that it is compared with.
    pub peer: Option<&'static str>,
    samples: Vec<f64>,
}

impl Measurement {
    /// A quantity without samples yet.
    pub fn new(name: &'static str, unit: &'static str, what: impl Into<String>) -> Self {
        Self { name, what: what.into(), unit, peer: None, samples: Vec::new() }
    }

    /// A time in milliseconds, without samples yet.
    pub fn time(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, "ms", what)
    }

    /// To be compared with this measurement.
    pub fn beside(mut self, peer: &'static str) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Adds a sample.
    pub fn add(&mut self, value: f64) {
        self.samples.push(value);
    }

    /// Adds the time since then.
    pub fn add_since(&mut self, begin: Instant) {
        self.add(millis(begin.elapsed()));
    }

    /// Adds the duration of the work.
    pub async fn clock<T>(&mut self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let value = work.await;
        self.add_since(begin);
        value
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// Half of the samples are below.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let (below, above) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        match (sorted.get(below), sorted.get(above)) {
            (Some(below), Some(above)) => f64::midpoint(*below, *above),
            _ => f64::NAN,
        }
    }

    /// The smallest sample such that this percentage of the samples is not above it.
    pub fn percentile(&self, percent: usize) -> f64 {
        let sorted = self.sorted();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: impl IntoIterator<Item = u32>) -> Measurement {
        let mut measurement = Measurement::time("test", "test");
        samples.into_iter().for_each(|sample| measurement.add(f64::from(sample)));
        measurement
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(of([3, 1, 2]).median(), 2.0);
        assert_eq!(of([4, 1, 3, 2]).median(), 2.5);
        assert_eq!(of([7]).median(), 7.0);
    }

    #[test]
    fn percentile_is_the_smallest_sample_that_covers_the_share() {
        assert_eq!(of((1..=100).rev()).percentile(95), 95.0);
        assert_eq!(of((1..=200).rev()).percentile(99), 198.0);
        assert_eq!(of(1..=20).percentile(95), 19.0);
        assert_eq!(of(1..=19).percentile(95), 19.0);
    }
}
