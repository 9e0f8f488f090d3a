//! Durations as text, the same for the server, the agent and the command line.

use std::ops::RangeInclusive;
use std::time::Duration;

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// `20s`, `500ms`, `5m`, `1h30m`, `7d`; a bare number is seconds.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(sqlflow_units::duration("1m30s"), Ok(Duration::from_secs(90)));
/// ```
///
/// # Errors
/// The error in one sentence, with a fix.
pub fn duration(text: &str) -> Result<Duration, String> {
    let no_time =
        || format!("{text:?} is not a duration; write 20s, 5m, 1h30m or 7d, or a number of seconds");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    loop {
        let (number, unit, after) = split(rest).ok_or_else(no_time)?;
        let is_alone = rest == text.trim() && after.is_empty();
        seconds += number
            * match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, seconds)) => *seconds,
                None if unit.is_empty() && is_alone => 1.0,
                None if unit.is_empty() => return Err(no_time()),
                None => return Err(format!("{unit:?} is not a unit of time; use ms, s, m, h or d")),
            };
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text:?} is not a duration: {error}"))
}

/// The same in whole seconds, rounded up.
///
/// # Errors
/// Those of [`duration`]; the seconds do not fit 32 bits.
pub fn whole_seconds(text: &str) -> Result<u32, String> {
    let seconds = duration(text)?.as_secs_f64().ceil();
    if seconds > f64::from(u32::MAX) {
        return Err(format!("{text:?} is too long"));
    }
    Ok(seconds as u32)
}

/// A whole number within these bounds.
///
/// # Errors
/// The error in one sentence, with the bounds.
pub fn whole_number<T: TryFrom<u64>>(text: &str, bounds: RangeInclusive<u64>) -> Result<T, String> {
    let number = text.trim().parse().ok().filter(|it| bounds.contains(it));
    let (least, most) = (bounds.start(), bounds.end());
    let wrong = || match *most {
        u64::MAX => format!("{text:?} is not a whole number of {least} or more"),
        most => format!("{text:?} is not a whole number from {least} to {most}"),
    };
    number.and_then(|it| T::try_from(it).ok()).ok_or_else(wrong)
}

/// A number, its unit, and the rest.
fn split(text: &str) -> Option<(f64, &str, &str)> {
    // `1e3` is a number.
    if let Ok(number) = text.parse::<f64>() {
        return text.ends_with(|it: char| it.is_ascii_digit() || it == '.').then_some((number, "", ""));
    }
    let end = text.find(|it: char| !(it.is_ascii_digit() || it == '.')).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    let unit_end = text[end..].find(|it: char| !it.is_ascii_alphabetic()).map_or(text.len(), |it| end + it);
    Some((number, &text[end..unit_end], &text[unit_end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_parsed() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("90", 90_000),
            ("0.5", 500),
            ("1e3", 1_000_000),
            ("20s", 20_000),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("5m", 300_000),
            ("36h", 129_600_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            (" 10s ", 10_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn invalid_duration_is_an_error_with_a_fix() {
        for bad in
            ["", "soon", "s", "-1", "-1s", "5 m", "5w", "5M", "inf", "nan", "1e400", "1h30", "0s-", "1..5s"]
        {
            let error = duration(bad).unwrap_err();
            assert!(
                error.contains("is not a duration") || error.contains("use ms, s, m, h or d"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn whole_seconds_are_rounded_up() {
        assert_eq!(whole_seconds("0"), Ok(0));
        assert_eq!(whole_seconds("1ms"), Ok(1));
        assert_eq!(whole_seconds("5m"), Ok(300));
        assert!(whole_seconds("200000d").is_err());
    }

    #[test]
    fn whole_number_names_its_bounds() {
        assert_eq!(whole_number::<u32>(" 7 ", 0..=9), Ok(7));
        let error = |text, bounds| whole_number::<u32>(text, bounds).unwrap_err();
        assert_eq!(error("abc", 1..=9), "\"abc\" is not a whole number from 1 to 9");
        assert_eq!(error("0", 1..=u64::MAX), "\"0\" is not a whole number of 1 or more");
        assert_eq!(error("4294967296", 0..=u64::MAX), "\"4294967296\" is not a whole number of 0 or more");
    }
}
