//! Chart of curves as SVG: one measure over the rounds, a line for each data set. Drawn by the server, so no script
//! is needed.

use maud::{Markup, html};

use crate::web::downsampling::Series;

/// Size of the drawing in units of about a pixel.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 210.0;
/// Area of the curves.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 338.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 168.0;
/// Maximum number of lines in one chart, each with its own colour and dash.
const MAX_LINES: usize = 4;

/// A range of values, with round numbers as ticks.
#[derive(Debug, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From a round number below to one above, in steps of 1, 2 or 5 times a power of ten.
    fn of(low: f64, high: f64, steps: f64) -> Self {
        let span = (high - low).max(f64::MIN_POSITIVE);
        // A constant line gets some room above and below.
        let span = if high > low { span } else { low.abs().max(1.0) };
        let power = 10_f64.powf((span / steps).log10().floor());
        let factor = [1.0, 2.0, 5.0].into_iter().find(|it| it * power * steps >= span).unwrap_or(10.0);
        let step = factor * power;
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        if high > low { Self { low, high, step } } else { Self { low: low - step, high: high + step, step } }
    }

    /// Whole rounds, from the first to the last.
    fn of_rounds(first: u64, last: u64) -> Self {
        let step = Self::of(first as f64, last as f64, 5.0).step.max(1.0);
        Self { low: first as f64, high: (last as f64).max(first as f64 + 1.0), step }
    }

    fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let count = ((self.high / self.step + 1e-9).floor() - first).clamp(0.0, 20.0) as u32;
        (0..=count).map(|it| (first + f64::from(it)) * self.step).collect()
    }

    /// With as many digits as two ticks need to differ.
    fn label(&self, value: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        if largest >= 1e6 || self.step < 1e-4 {
            return format!("{value:.1e}");
        }
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        let text = format!("{value:.digits$}");
        if text.trim_start_matches('-').chars().all(|it| matches!(it, '0' | '.')) {
            "0".to_owned()
        } else {
            text
        }
    }

    /// Position of a value, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The chart of a measure; `kept` is the round of the model.
pub(super) fn chart(measure: &str, lines: &[(&str, &Series)], kept: Option<u64>) -> Markup {
    let lines = &lines[..lines.len().min(MAX_LINES)];
    let points: Vec<_> = lines.iter().map(|(_, series)| series.points()).collect();
    let all = || points.iter().flatten();
    let Some(first) = all().map(|it| it.0).min() else { return html! {} };
    let last = all().map(|it| it.0).max().unwrap_or(first);
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it.1), high.max(it.1)));
    let (rounds, values) = (Axis::of_rounds(first, last), Axis::of(low, high, 4.0));
    let x = |round: u64| LEFT + rounds.place(round as f64) * (RIGHT - LEFT);
    let y = |value: f64| BOTTOM - values.place(value) * (BOTTOM - TOP);
    let at = |it: f64| format!("{it:.1}");
    html! {
        figure {
            figcaption {
                b { (measure) } " "
                @for (index, (data, series)) in lines.iter().enumerate() {
                    @if let Some((round, value)) = series.last() {
                        span .value {
                            span class={ "key line-" (index) } {} (data) @if !data.is_empty() { " " }
                            @match kept.and_then(|kept| Some((kept, series.at(kept)?))) {
                                Some((kept, value)) => { (short(value)) " in the kept round " (kept) }
                                None => { (short(value)) " in round " (round) }
                            }
                        } " "
                    }
                }
            }
            svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                aria-label={ (measure) " over rounds " (first) " to " (last) ", from " (short(low)) " to " (short(high)) } {
                @for tick in values.ticks() {
                    line .tick x1=(LEFT) x2=(RIGHT) y1=(at(y(tick))) y2=(at(y(tick))) {}
                    text x=(LEFT - 6.0) y=(at(y(tick) + 4.0)) text-anchor="end" { (values.label(tick)) }
                }
                @for tick in rounds.ticks() {
                    @let x = LEFT + rounds.place(tick) * (RIGHT - LEFT);
                    line .tick x1=(at(x)) x2=(at(x)) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                    text x=(at(x)) y=(BOTTOM + 17.0) text-anchor="middle" { (format!("{tick:.0}")) }
                }
                path .axis d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
                text x=(at((LEFT + RIGHT) / 2.0)) y=(HEIGHT - 6.0) text-anchor="middle" { "round" }
                @if let Some(kept) = kept.filter(|it| (first..=last).contains(it)) {
                    @let is_left = x(kept) > (LEFT + RIGHT) / 2.0;
                    line .kept x1=(at(x(kept))) x2=(at(x(kept))) y1=(TOP) y2=(BOTTOM) {}
                    text .kept x=(at(x(kept) + if is_left { -5.0 } else { 5.0 })) y=(TOP - 6.0)
                        text-anchor=(if is_left { "end" } else { "start" }) { "round " (kept) " is kept" }
                }
                @for (index, points) in points.iter().enumerate() {
                    @match points.as_slice() {
                        [(round, value)] => circle class={ "line-" (index) } cx=(at(x(*round))) cy=(at(y(*value))) r="3" {},
                        _ => polyline class={ "line-" (index) } points=(drawn(points, x, y)) {},
                    }
                    @if let Some((kept, value)) = kept.and_then(|it| Some((it, lines[index].1.at(it)?))) {
                        circle class={ "line-" (index) } cx=(at(x(kept))) cy=(at(y(value))) r="3.5" {}
                    }
                }
            }
        }
    }
}

fn drawn(points: &[(u64, f64)], x: impl Fn(u64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let point = |(round, value): &(u64, f64)| format!("{:.1},{:.1}", x(*round), y(*value));
    points.iter().map(point).collect::<Vec<_>>().join(" ")
}

/// Four significant digits.
fn short(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e7).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let digits = (3.0 - value.abs().max(f64::MIN_POSITIVE).log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let labels = |low, high| {
            let axis = Axis::of(low, high, 4.0);
            axis.ticks().into_iter().map(|it| axis.label(it)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(labels(0.0123, 0.91), "0 0.5 1.0");
        assert_eq!(labels(0.31, 0.42), "0.30 0.35 0.40 0.45");
        assert_eq!(labels(-3.0, 7.0), "-5 0 5 10");
        assert_eq!(labels(120.0, 980.0), "0 500 1000");
        assert_eq!(labels(0.0, 0.0), "-0.5 0 0.5");
        assert_eq!(labels(0.2, 0.2), "0 0.5");
        assert_eq!(labels(1e9, 2e9), "1.0e9 1.5e9 2.0e9");
        for (low, high) in [(f64::MIN, f64::MAX), (1e300, 1e300), (0.0, 1e-300), (5.0, 5.0 + 1e-15)] {
            let axis = Axis::of(low, high, 4.0);
            assert!(axis.ticks().len() <= 21, "{axis:?}");
        }
        let rounds = Axis::of_rounds(1, 11);
        assert_eq!(rounds.ticks(), [2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Axis::of_rounds(1, 1).ticks(), [1.0, 2.0]);
        assert_eq!(
            [0.0, 0.975, 0.012_345, 1234.5, 1e-9, -0.5].map(short).join(" "),
            "0 0.975 0.01235 1234 1.000e-9 -0.5"
        );
    }

    #[test]
    fn chart_has_train_validation_and_the_kept_round() {
        let (mut train, mut validation) = (Series::default(), Series::default());
        for round in 1..=20 {
            train.push(round, 1.0 / round as f64);
            validation.push(round, 0.1 + (round as f64 - 12.0).abs() / 100.0);
        }
        let drawn = chart("rmse", &[("train", &train), ("validate", &validation)], Some(12)).into_string();
        for part in
            ["round 12 is kept", "validate 0.1 in the kept round 12", ">round</text>", "line-1", ">0.5<"]
        {
            assert!(drawn.contains(part), "{part}: {drawn}");
        }
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        let mut one = Series::default();
        one.push(1, 0.5);
        let drawn = chart("rmse", &[("", &one)], None).into_string();
        assert!(drawn.contains("<circle") && !drawn.contains("NaN"), "{drawn}");
        assert_eq!(chart("rmse", &[("", &Series::default())], None).into_string(), "");
    }
}
