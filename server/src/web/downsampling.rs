//! Measurements over rounds, thinned out to a bounded number of points.

use sqlflow_proto::v1::Metric;

/// Maximum number of points.
const MAX_POINTS: usize = 256;
/// Maximum characters of a name.
const NAME_CHARACTERS: usize = 100;

/// One measurement over the rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    points: Vec<(u64, f64)>,
    /// The newest point, kept or not.
    last: Option<(u64, f64)>,
    /// Only one in this many rounds is kept.
    stride: u64,
}

/// All measurements of one statement, by measure and data set. Those of one measure share a chart.
#[derive(Debug, Default)]
pub(super) struct Curves {
    all: Vec<(Name, Series)>,
    /// The round that the model keeps, if it is not the last one.
    pub(super) kept: Option<u64>,
}

/// For example `logloss` on the data `train`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) measure: String,
    pub(super) data: String,
}

impl Name {
    /// Parses the names that libraries use: `train-rmse` and `validate-rmse`, or `rmse` and `val_rmse`.
    fn parse(name: &str) -> Self {
        const DATA: [&str; 6] = ["train", "validate", "validation", "valid", "eval", "test"];
        let short = |text: &str| text.chars().take(NAME_CHARACTERS).collect();
        let (data, measure) = match (name.split_once('-'), name.strip_prefix("val_")) {
            (Some((data, measure)), _) if DATA.contains(&data) && !measure.is_empty() => (data, measure),
            (_, Some(measure)) if !measure.is_empty() => ("validate", measure),
            _ => ("", name),
        };
        Self { measure: short(measure), data: short(data) }
    }
}

impl Curves {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds measurements of a round. At most this many series may be new.
    pub(super) fn push(&mut self, round: u64, metrics: Vec<Metric>, room: usize) {
        let most = self.all.len() + room;
        for Metric { name, value } in metrics {
            let name = Name::parse(&name);
            let at = self.all.iter().position(|(it, _)| *it == name).unwrap_or(self.all.len());
            if at == self.all.len() && at < most {
                self.all.push((name, Series::default()));
            }
            if let Some((_, series)) = self.all.get_mut(at) {
                series.push(round, value);
            }
        }
    }

    /// For each measure, its data sets in the order of their first appearance.
    pub(super) fn charts(&self) -> Vec<(&str, Vec<(&str, &Series)>)> {
        let mut charts: Vec<(&str, Vec<(&str, &Series)>)> = Vec::new();
        for (name, series) in &self.all {
            let line = (name.data.as_str(), series);
            match charts.iter_mut().find(|(measure, _)| *measure == name.measure) {
                Some((_, lines)) => lines.push(line),
                None => charts.push((&name.measure, vec![line])),
            }
        }
        // Beside `val_loss`, `loss` is that of the training.
        for (_, lines) in charts.iter_mut().filter(|(_, lines)| lines.len() > 1) {
            lines.iter_mut().filter(|line| line.0.is_empty()).for_each(|line| line.0 = "train");
        }
        charts
    }
}

impl Series {
    /// Adds a measurement of this round. An earlier round than the last one restarts the series: the step was
    /// repeated.
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

    /// The curve, with the newest point.
    pub(super) fn points(&self) -> Vec<(u64, f64)> {
        let newest = self.last.filter(|last| self.points.last() != Some(last) && last.1.is_finite());
        self.points.iter().copied().chain(newest).collect()
    }

    /// The newest value.
    pub(super) fn last(&self) -> Option<(u64, f64)> {
        self.last
    }

    /// The value in this round, or in the last kept one before it.
    pub(super) fn at(&self, round: u64) -> Option<f64> {
        let points = self.points();
        let end = points.partition_point(|(it, _)| *it <= round);
        Some(points.get(end.checked_sub(1)?)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_training_is_thinned_out_and_keeps_first_and_last_round() {
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
        assert_eq!((series.at(0), series.at(1), series.at(9)), (None, Some(7.0), Some(7.0)));
    }

    #[test]
    fn train_and_validation_are_lines_of_one_chart() {
        let mut curves = Curves::default();
        let names = ["train-mlogloss", "train-merror", "validate-mlogloss", "loss", "val_loss", "per-class"];
        let metrics = |value| names.map(|name| Metric { name: name.to_owned(), value }).to_vec();
        curves.push(1, metrics(0.5), 6);
        curves.push(2, metrics(0.4), 0);
        curves.push(2, vec![Metric { name: "one-more".into(), value: 0.0 }], 0);
        let charts = curves.charts().into_iter().map(|(measure, lines)| {
            let data: Vec<_> =
                lines.iter().map(|(data, series)| format!("{data} {}", series.points().len())).collect();
            format!("{measure}: {}", data.join(", "))
        });
        let expected = [
            "mlogloss: train 2, validate 2",
            "merror: train 2",
            "loss: train 2, validate 2",
            "per-class:  2",
        ];
        assert_eq!(charts.collect::<Vec<_>>(), expected);
    }
}
