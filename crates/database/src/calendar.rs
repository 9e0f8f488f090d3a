//! Days of the calendar, from any distance.

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;
/// Days of 400 years, which are the same in each 400 years.
const ERA: i64 = 146_097;

/// Year, month and day of a day since 1970-01-01. The year before the year 1 is 0.
pub(crate) fn civil(days: i64) -> (i64, u8, u8) {
    // Years that begin in March end with the leap day.
    let days = days.saturating_add(EPOCH);
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let number = |part: i64| u8::try_from(part).unwrap_or_default();
    (era * 400 + year, number(month), number(day))
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(days in -4_371_587_i64..=2_932_896) {
            let expected = civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            let (year, month, day) = super::civil(days);
            let found = (i16::try_from(year).unwrap(), month.cast_signed(), day.cast_signed());
            prop_assert_eq!(found, (expected.year(), expected.month(), expected.day()));
        }

        #[test]
        fn any_day_has_a_date(days: i64) {
            let (_, month, day) = super::civil(days);
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
    }
}
