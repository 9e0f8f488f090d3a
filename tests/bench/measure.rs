//! Samples of one quantity, and what they come to.

use std::time::{Duration, Instant};

/// A quantity that was measured.
#[derive(Debug)]
pub struct Measurement {
    /// Its name in the report, for programs.
    pub name: &'static str,
    /// What it is, for people.
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

    /// Takes a sample.
    pub fn add(&mut self, value: f64) {
        self.samples.push(value);
    }

    /// Takes the time since then.
    pub fn add_since(&mut self, begin: Instant) {
        self.add(millis(begin.elapsed()));
    }

    /// Takes the time that the work needs.
    pub async fn clock<T>(&mut self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let value = work.await;
        self.add_since(begin);
        value
    }

    /// How many samples there are.
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

    /// So many of a hundred samples are not above it; with few samples it is the largest.
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
    fn the_median_is_in_the_middle() {
        assert_eq!(of([3, 1, 2]).median(), 2.0);
        assert_eq!(of([4, 1, 3, 2]).median(), 2.5);
        assert_eq!(of([7]).median(), 7.0);
    }

    #[test]
    fn a_percentile_leaves_the_rest_above() {
        assert_eq!(of((1..=100).rev()).percentile(95), 95.0);
        assert_eq!(of((1..=200).rev()).percentile(99), 198.0);
        assert_eq!(of(1..=20).percentile(95), 19.0);
        assert_eq!(of(1..=19).percentile(95), 19.0);
    }
}
