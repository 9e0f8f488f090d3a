//! Measurements over rounds, thinned out so that any training fits into a small curve.

/// Points that are kept at the most.
const MAX_POINTS: usize = 512;

/// One measurement over the rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    points: Vec<(u64, f64)>,
    /// The newest, whether it is kept or not.
    last: Option<(u64, f64)>,
    /// Only every so many-th round is kept.
    stride: u64,
}

impl Series {
    /// A measurement of this round. An earlier round than the last one begins anew: the step was repeated.
    pub(super) fn push(&mut self, round: u64, value: f64) {
        if self.last.is_some_and(|(last, _)| round <= last) {
            *self = Self::default();
        }
        self.last = Some((round, value));
        self.stride = self.stride.max(1);
        if !value.is_finite() || self.points.last().is_some_and(|(last, _)| round < last + self.stride) {
            return;
        }
        self.points.push((round, value));
        if self.points.len() > MAX_POINTS {
            self.stride *= 2;
            let mut at = 0;
            self.points.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }

    /// The curve, the newest point included.
    pub(super) fn points(&self) -> Vec<(u64, f64)> {
        let newest = self.last.filter(|last| self.points.last() != Some(last) && last.1.is_finite());
        self.points.iter().copied().chain(newest).collect()
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<(u64, f64)> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_training_is_a_small_curve_from_its_first_round_to_its_last() {
        let mut series = Series::default();
        for round in 1..=1_000_000 {
            series.push(round, round as f64);
        }
        let points = series.points();
        assert!(points.len() <= MAX_POINTS + 2, "{}", points.len());
        assert_eq!((points[0].0, points.last().unwrap().0), (1, 1_000_000));
        assert!(points.windows(2).all(|two| two[0].0 < two[1].0));
        series.push(1, 7.0);
        assert_eq!(series.points(), [(1, 7.0)]);
        series.push(2, f64::NAN);
        assert_eq!(series.points(), [(1, 7.0)]);
    }
}
