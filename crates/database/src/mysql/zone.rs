//! The time zone in which a session shows columns of type TIMESTAMP. The server stores them in UTC.

use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{PrimitiveArray, StringArray, TimestampMicrosecondArray};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// The zone of `@@session.time_zone` and `@@system_time_zone`. `None`: it is not known. The name of the system's zone is
/// an abbreviation such as `CST`, which may mean several zones.
pub(super) fn time_zone(session: &str, system: &str) -> Option<TimeZone> {
    match session {
        "SYSTEM" => matches!(system, "UTC" | "GMT").then_some(TimeZone::UTC),
        "UTC" => Some(TimeZone::UTC),
        _ => offset(session).or_else(|| TimeZone::get(session).ok()),
    }
}

/// `+05:30` or `-3:00`.
fn offset(text: &str) -> Option<TimeZone> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let seconds =
        hours.parse::<u8>().ok().map(i32::from)? * 3600 + minutes.parse::<u8>().ok().map(i32::from)? * 60;
    Offset::from_seconds(sign * seconds).ok().map(TimeZone::fixed)
}

/// Converts local times to instants. If a clock was set back, an hour that occurs twice is the first. `None`: a time
/// is outside the calendar.
pub(super) fn instants(
    local: &TimestampMicrosecondArray,
    zone: &TimeZone,
) -> Option<TimestampMicrosecondArray> {
    let instant = |micros: i64| {
        let civil = Timestamp::from_microsecond(micros).ok()?.to_zoned(TimeZone::UTC).datetime();
        Some(zone.to_timestamp(civil).ok()?.as_microsecond())
    };
    let values: Option<Vec<i64>> = local.values().iter().map(|it| instant(*it)).collect();
    Some(PrimitiveArray::<TimestampMicrosecondType>::new(
        values?.into(),
        arrow_array::Array::nulls(local).cloned(),
    ))
}

/// Converts printed local times to UTC. Those that are not of the calendar, such as zeros, are unchanged.
pub(super) fn in_utc(local: &StringArray, zone: &TimeZone) -> StringArray {
    let convert = |text: &str| {
        let instant = zone.to_timestamp(text.parse::<DateTime>().ok()?).ok()?;
        Some(Offset::UTC.to_datetime(instant).to_string())
    };
    local.iter().map(|it| it.map(|text| convert(text).unwrap_or_else(|| text.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_become_instants() {
        for (session, system, hours) in [
            ("+05:00", "CST", Some(5.0)),
            ("-03:30", "UTC", Some(-3.5)),
            ("-3:30", "UTC", Some(-3.5)),
            ("SYSTEM", "UTC", Some(0.0)),
            ("SYSTEM", "CST", None),
            ("Europe/Paris", "UTC", Some(2.0)),
            ("No/Where", "UTC", None),
            ("+5", "UTC", None),
        ] {
            let zone = time_zone(session, system);
            assert_eq!(zone.is_some(), hours.is_some(), "{session}");
            if let (Some(zone), Some(hours)) = (zone, hours) {
                // 2024-07-01 12:00:00.5
                let summer = 1_719_835_200_500_000;
                let found = instants(&vec![Some(summer), None].into(), &zone).unwrap();
                let expected = summer - (hours * 3_600e6) as i64;
                assert_eq!(found, TimestampMicrosecondArray::from(vec![Some(expected), None]), "{session}");
            }
        }
    }

    #[test]
    fn hour_that_occurs_twice_is_the_first() {
        let zone = time_zone("Europe/Paris", "").unwrap();
        // 2024-10-27 02:30, at 00:30 and at 01:30 in UTC.
        let found = instants(&vec![1_729_996_200_000_000].into(), &zone).unwrap();
        assert_eq!(found.value(0), 1_729_989_000_000_000);
    }

    #[test]
    fn printed_times_are_converted_unless_they_are_not_of_the_calendar() {
        let zone = time_zone("Europe/Paris", "").unwrap();
        let local = StringArray::from(vec![
            Some("2024-07-01 12:00:00.125"),
            None,
            Some("0000-00-00 00:00:00"),
            Some("2024-01-01 00:30:00"),
        ]);
        let expected = StringArray::from(vec![
            Some("2024-07-01T10:00:00.125"),
            None,
            Some("0000-00-00 00:00:00"),
            Some("2023-12-31T23:30:00"),
        ]);
        assert_eq!(in_utc(&local, &zone), expected);
    }
}
