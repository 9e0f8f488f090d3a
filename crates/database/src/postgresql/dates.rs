//! Dates and times of day, which PostgreSQL counts from 2000-01-01.

use std::io::Write as _;

use crate::calendar::civil;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// From 1970-01-01 to 2000-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;

/// Appends a date as the server prints it, in days since 1970-01-01, and a time. The year before the year 1 is 1 BC.
pub(super) fn print_date(days: i64, out: &mut Vec<u8>, time: impl FnOnce(&mut Vec<u8>)) {
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year } else { 1 - year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    time(out);
    if year <= 0 {
        out.extend(b" BC");
    }
}

/// Appends a space and a time of day, without its fraction.
pub(super) fn print_seconds(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / MICROS_PER_SECOND;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
}
