//! Samples of one quantity, their statistics, and what they are compared with.

use std::fmt;
use std::time::{Duration, Instant};

/// A quantity that was measured.
#[derive(Debug)]
pub struct Measurement {
    /// Its name in the report, for programs.
    pub name: String,
    /// Its title, for people.
    pub what: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// What it is compared with, and its goals.
    pub comparisons: Vec<Comparison>,
    samples: Vec<f64>,
}

/// A figure of a measurement, alone or beside the median of another one.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Which figure of the samples.
    pub statistic: Statistic,
    /// What is made of it.
    pub relation: Relation,
    /// What it should be; `None`: there is no goal.
    pub goal: Option<Goal>,
}

/// What a comparison shows. A name is that of another measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// The figure itself.
    Alone,
    /// The figure, divided by that one's median.
    RatioTo(String),
    /// The figure, less that one's median.
    MoreThan(String),
}

/// A figure of many samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The median.
    Median,
    /// The 99th percentile.
    P99,
}

/// Bound of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Met by figures up to this one.
    AtMost(f64),
    /// Met by figures from this one.
    AtLeast(f64),
}

impl Goal {
    /// Whether the figure reaches it. A figure that is no number does not.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(out, "≤ {most}"),
            Self::AtLeast(least) => write!(out, "≥ {least}"),
        }
    }
}

impl Measurement {
    /// A quantity without samples yet.
    pub fn new(name: impl Into<String>, unit: &'static str, what: impl Into<String>) -> Self {
        Self { name: name.into(), what: what.into(), unit, comparisons: Vec::new(), samples: Vec::new() }
    }

    /// A time in milliseconds, without samples yet.
    pub fn time(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(name, "ms", what)
    }

    /// To be compared with this measurement.
    pub fn beside(self, peer: impl Into<String>) -> Self {
        self.compared(Statistic::Median, Relation::RatioTo(peer.into()), None)
    }

    /// To be compared with this measurement, with a goal for the ratio.
    pub fn goal_beside(self, goal: Goal, peer: impl Into<String>) -> Self {
        self.compared(Statistic::Median, Relation::RatioTo(peer.into()), Some(goal))
    }

    /// To be compared in any way.
    pub fn compared(mut self, statistic: Statistic, relation: Relation, goal: Option<Goal>) -> Self {
        self.comparisons.push(Comparison { statistic, relation, goal });
        self
    }

    /// With a goal for its median.
    pub fn goal(self, goal: Goal) -> Self {
        self.compared(Statistic::Median, Relation::Alone, Some(goal))
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

    /// This figure of the samples.
    pub fn figure(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Median => self.median(),
            Statistic::P99 => self.percentile(99),
        }
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

    #[test]
    fn goal_is_met_up_to_its_bound_and_never_by_no_number() {
        assert!(Goal::AtMost(0.75).is_met(0.75) && !Goal::AtMost(0.75).is_met(0.76));
        assert!(Goal::AtLeast(2.0).is_met(2.0) && !Goal::AtLeast(2.0).is_met(1.9));
        assert!(!Goal::AtMost(1.0).is_met(f64::NAN) && !Goal::AtLeast(1.0).is_met(f64::NAN));
    }
}
