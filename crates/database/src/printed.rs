//! Values as a server prints them, in columns, and their decoding by the type of the column. A batch with a value that
//! its decoder does not know, such as the date `infinity` or `0000-00-00`, stays text.

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type,
};
use arrow_array::{Array as _, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};

use crate::{Kind, Value, Values};

type Decode = fn(&BinaryArray) -> Values;

/// Decodes the printed values of one column of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder {
    decode: Decode,
    /// The kind that it gives to values. `None`: texts.
    pub(crate) kind: Option<Kind>,
}

impl Decoder {
    pub(crate) const fn new(decode: Decode, kind: Option<Kind>) -> Self {
        Self { decode, kind }
    }
}

pub(crate) const BOOLS: Decoder = Decoder::new(bools, Some(Kind::Bool));
pub(crate) const INTS: Decoder = Decoder::new(ints, Some(Kind::Int));
pub(crate) const FLOATS: Decoder = Decoder::new(floats, Some(Kind::Float));
pub(crate) const DECIMALS: Decoder = Decoder::new(decimals, Some(Kind::Decimal));
pub(crate) const TEXTS: Decoder = Decoder::new(texts, None);
pub(crate) const BLOBS: Decoder = Decoder::new(blobs, Some(Kind::Blob));
pub(crate) const HEX_BLOBS: Decoder = Decoder::new(hex_blobs, Some(Kind::Blob));
pub(crate) const DATES: Decoder = Decoder::new(dates, Some(Kind::Date));
pub(crate) const TIMESTAMPS: Decoder = Decoder::new(timestamps, Some(Kind::Timestamp));
pub(crate) const INSTANTS: Decoder = Decoder::new(instants, Some(Kind::Instant));

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// The printed values of one column of the batch that is being filled.
#[derive(Debug)]
pub(crate) struct PrintedColumn {
    data: Vec<u8>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Default for PrintedColumn {
    fn default() -> Self {
        Self { data: Vec::new(), offsets: vec![0], nulls: NullBufferBuilder::new(0) }
    }
}

impl PrintedColumn {
    /// Adds a value.
    pub(crate) fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.nulls.append_non_null();
        self.end();
    }

    /// Adds a NULL.
    pub(crate) fn push_null(&mut self) {
        self.nulls.append_null();
        self.end();
    }

    /// A batch has at most one row beyond its bytes, and a row has at most 64 MiB.
    fn end(&mut self) {
        self.offsets.push(i32::try_from(self.data.len()).unwrap_or(i32::MAX));
    }

    /// Takes the values, and begins the next batch.
    pub(crate) fn take(&mut self) -> BinaryArray {
        // The next batch is likely to be as large.
        let (bytes, rows) = (self.data.len(), self.offsets.len());
        let data = std::mem::replace(
            &mut self.data,
            Vec::with_capacity(bytes.min(crate::batcher::Limits::COMPUTED.bytes)),
        );
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows));
        self.offsets.push(0);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        BinaryArray::new(offsets, Buffer::from_vec(data), self.nulls.finish())
    }
}

/// Decodes the values of one column.
pub(crate) fn decode(raw: &BinaryArray, decoder: Decoder) -> Values {
    if raw.null_count() == raw.len() { Values::Null } else { (decoder.decode)(raw) }
}

/// Integers. Those beyond `u64` keep their digits.
fn ints(raw: &BinaryArray) -> Values {
    if let Some(values) = each::<Int64Type>(raw, |it| btoi::btoi(it).ok()) {
        return Values::Ints(values);
    }
    if let Some(values) = each::<UInt64Type>(raw, |it| btoi::btou(it).ok()) {
        return Values::Uints(values);
    }
    let is_integer = |it: &[u8]| {
        let digits = it.strip_prefix(b"-").unwrap_or(it);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    if raw.iter().flatten().all(is_integer) { decimals(raw) } else { texts(raw) }
}

/// Floating point numbers, also `Infinity` and `NaN`.
fn floats(raw: &BinaryArray) -> Values {
    each::<Float64Type>(raw, |it| std::str::from_utf8(it).ok()?.parse().ok())
        .map_or_else(|| texts(raw), Values::Floats)
}

/// Exact decimals.
fn decimals(raw: &BinaryArray) -> Values {
    StringArray::try_from_binary(raw.clone()).map_or_else(|_| texts(raw), Values::Decimals)
}

/// Texts. A batch with a value that is not UTF-8 is mixed.
pub(crate) fn texts(raw: &BinaryArray) -> Values {
    if let Ok(values) = StringArray::try_from_binary(raw.clone()) {
        return Values::Texts(values);
    }
    let value = |it: Option<&[u8]>| match it.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => Value::Text(text.to_owned()),
        Some(Err(_)) => Value::NotUtf8(it.unwrap_or_default().to_owned()),
    };
    Values::Mixed(raw.iter().map(value).collect())
}

/// Byte strings, sent as they are.
fn blobs(raw: &BinaryArray) -> Values {
    Values::Blobs(raw.clone())
}

/// Byte strings, printed as `\x0aff`.
fn hex_blobs(raw: &BinaryArray) -> Values {
    let mut column = PrintedColumn::default();
    let mut bytes = Vec::new();
    for value in raw {
        let Some(value) = value else {
            column.push_null();
            continue;
        };
        let Some(digits) = value.strip_prefix(b"\\x") else { return texts(raw) };
        bytes.resize(digits.len() / 2, 0);
        if hex::decode_to_slice(digits, &mut bytes).is_err() {
            return texts(raw);
        }
        column.push(&bytes);
    }
    Values::Blobs(column.take())
}

/// Booleans, printed as `t` and `f`.
fn bools(raw: &BinaryArray) -> Values {
    if raw.iter().flatten().any(|it| !matches!(it, b"t" | b"f")) {
        return texts(raw);
    }
    let values: BooleanBuffer = raw.iter().map(|it| it == Some(b"t")).collect();
    Values::Bools(BooleanArray::new(values, raw.nulls().cloned()))
}

/// Dates: `2024-02-29`, from the year 1 to 9999.
fn dates(raw: &BinaryArray) -> Values {
    each::<Date32Type>(raw, |it| day(it.try_into().ok()?)).map_or_else(|| texts(raw), Values::Dates)
}

/// Local times: `2024-02-29 12:30:00.5`.
fn timestamps(raw: &BinaryArray) -> Values {
    let local = |it: &[u8]| moment(it).filter(|(_, rest)| rest.is_empty()).map(|(micros, _)| micros);
    each::<TimestampMicrosecondType>(raw, local).map_or_else(|| texts(raw), Values::Timestamps)
}

/// Times with an offset from UTC: `2024-02-29 12:30:00.5+05:30`.
fn instants(raw: &BinaryArray) -> Values {
    let instant = |it: &[u8]| {
        let (micros, rest) = moment(it)?;
        Some(micros - offset_seconds(rest)? * MICROS_PER_SECOND)
    };
    each::<TimestampMicrosecondType>(raw, instant).map_or_else(|| texts(raw), Values::Instants)
}

/// Parses each value. `None`: a value cannot be parsed.
fn each<T: ArrowPrimitiveType>(
    raw: &BinaryArray,
    parse: impl Fn(&[u8]) -> Option<T::Native>,
) -> Option<PrimitiveArray<T>> {
    let mut values = Vec::with_capacity(raw.len());
    match raw.nulls() {
        None => {
            for row in 0..raw.len() {
                values.push(parse(raw.value(row))?);
            }
        }
        Some(_) => {
            for value in raw {
                values.push(value.map_or(Some(T::Native::default()), &parse)?);
            }
        }
    }
    Some(PrimitiveArray::new(values.into(), raw.nulls().cloned()))
}

/// Days since 1970-01-01.
fn day(text: &[u8; 10]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let (century, year, month, day) = (two(y1, y2)?, two(y3, y4)?, two(m1, m2)?, two(d1, d2)?);
    let year = i32::from(century) * 100 + i32::from(year);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || day == 0 || day > last {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * i32::from(month) + 2) / 5 + i32::from(day) - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468)
}

/// Microseconds since 1970-01-01 of a date and a time, and the text after them.
fn moment(text: &[u8]) -> Option<(i64, &[u8])> {
    let (date, text) = text.split_first_chunk()?;
    let ([separator, h1, h2, b':', m1, m2, b':', s1, s2], mut rest) = text.split_first_chunk()? else {
        return None;
    };
    let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    if !matches!(separator, b' ' | b'T') || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|it| it.is_ascii_digit()).count();
        if digits == 0 || digits > 6 {
            return None;
        }
        let (fraction, after) = fraction.split_at(digits);
        micros = (0..6)
            .fold(0, |sum, place| sum * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0')));
        rest = after;
    }
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    let seconds = i64::from(day(date)?) * SECONDS_PER_DAY + seconds;
    Some((seconds * MICROS_PER_SECOND + micros, rest))
}

/// `+02`, `-03:30` or `+00:17:30` in seconds.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes, seconds) = match *digits {
        [h1, h2] => (two(h1, h2)?, 0, 0),
        [h1, h2, b':', m1, m2] => (two(h1, h2)?, two(m1, m2)?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?),
        _ => return None,
    };
    Some(sign * ((i64::from(hours) * 60 + i64::from(minutes)) * 60 + i64::from(seconds)))
}

/// The value of two digits.
fn two(tens: u8, units: u8) -> Option<u8> {
    (tens.is_ascii_digit() && units.is_ascii_digit()).then(|| (tens - b'0') * 10 + (units - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(values: &[Option<&[u8]>]) -> BinaryArray {
        let mut column = PrintedColumn::default();
        for batch in 0..2 {
            for value in values {
                match value {
                    Some(value) => column.push(value),
                    None => column.push_null(),
                }
            }
            // The second batch begins as the first one did.
            if batch == 0 {
                column.take();
            }
        }
        column.take()
    }

    /// Decoded values, each printed by Rust, with the kind.
    fn decoded(decoder: Decode, values: &[&str]) -> String {
        let raw: Vec<Option<&[u8]>> =
            values.iter().map(|it| (*it != "NULL").then_some(it.as_bytes())).collect();
        match decode(&column(&raw), Decoder::new(decoder, None)) {
            Values::Null => "null".to_owned(),
            Values::Bools(it) => format!("bools {:?}", it.iter().collect::<Vec<_>>()),
            Values::Ints(it) => format!("ints {:?}", it.iter().collect::<Vec<_>>()),
            Values::Uints(it) => format!("uints {:?}", it.iter().collect::<Vec<_>>()),
            Values::Floats(it) => format!("floats {:?}", it.iter().collect::<Vec<_>>()),
            Values::Texts(it) => format!("texts {:?}", it.iter().collect::<Vec<_>>()),
            Values::Blobs(it) => format!("blobs {:?}", it.iter().collect::<Vec<_>>()),
            Values::Decimals(it) => format!("decimals {:?}", it.iter().collect::<Vec<_>>()),
            Values::Dates(it) => format!("dates {:?}", it.iter().collect::<Vec<_>>()),
            Values::Timestamps(it) => format!("timestamps {:?}", it.iter().collect::<Vec<_>>()),
            Values::Instants(it) => format!("instants {:?}", it.iter().collect::<Vec<_>>()),
            Values::Mixed(it) => format!("mixed {it:?}"),
        }
    }

    #[test]
    fn numbers_are_decoded() {
        let cases: [(Decode, &[&str], &str); 12] = [
            (
                ints,
                &["-9223372036854775808", "NULL", "042"],
                "ints [Some(-9223372036854775808), None, Some(42)]",
            ),
            (ints, &["18446744073709551615", "NULL"], "uints [Some(18446744073709551615), None]"),
            (ints, &["18446744073709551616", "-1"], r#"decimals [Some("18446744073709551616"), Some("-1")]"#),
            (ints, &["18446744073709551615", "-1"], r#"decimals [Some("18446744073709551615"), Some("-1")]"#),
            (ints, &["1", "x"], r#"texts [Some("1"), Some("x")]"#),
            (ints, &["", "1"], r#"texts [Some(""), Some("1")]"#),
            (ints, &["NULL", "NULL"], "null"),
            (floats, &["0.1", "1e300", "NULL"], "floats [Some(0.1), Some(1e300), None]"),
            (floats, &["-Infinity", "NaN", "-0"], "floats [Some(-inf), Some(NaN), Some(-0.0)]"),
            (floats, &["1", "much"], r#"texts [Some("1"), Some("much")]"#),
            (
                decimals,
                &["-12345678901234567890.1250", "NULL"],
                r#"decimals [Some("-12345678901234567890.1250"), None]"#,
            ),
            (bools, &["t", "f", "NULL"], "bools [Some(true), Some(false), None]"),
        ];
        for (decoder, values, expected) in cases {
            assert_eq!(decoded(decoder, values), expected, "{values:?}");
        }
        assert_eq!(decoded(bools, &["t", "x"]), r#"texts [Some("t"), Some("x")]"#);
    }

    #[test]
    fn texts_and_blobs_are_decoded() {
        assert_eq!(decoded(texts, &["é", "", "NULL"]), r#"texts [Some("é"), Some(""), None]"#);
        assert_eq!(decoded(blobs, &["a", "NULL"]), "blobs [Some([97]), None]");
        assert_eq!(decoded(hex_blobs, &["\\x00fF", "NULL", "\\x"]), "blobs [Some([0, 255]), None, Some([])]");
        for wrong in ["\\x0", "\\xzz", "00", "\\000"] {
            assert!(decoded(hex_blobs, &["\\x00", wrong]).starts_with("texts"), "{wrong}");
        }
        // A character that two values share is UTF-8 in neither.
        let halves = column(&[Some(b"\xc3"), Some(b"\xa9"), None, Some("é".as_bytes())]);
        let Values::Mixed(values) = texts(&halves) else { panic!("not mixed") };
        let (first, second) = (Value::NotUtf8(vec![0xc3]), Value::NotUtf8(vec![0xa9]));
        assert_eq!(values, [first, second, Value::Null, Value::Text("é".into())]);
    }

    #[test]
    fn times_are_decoded() {
        let date = "dates [Some(-1), None, Some(-719162), Some(2932896)]";
        assert_eq!(decoded(dates, &["1969-12-31", "NULL", "0001-01-01", "9999-12-31"]), date);
        assert_eq!(
            decoded(dates, &["2024-02-29", "1900-02-28", "2000-02-29"]),
            "dates [Some(19782), Some(-25509), Some(11016)]"
        );
        for odd in [
            "0000-00-00",
            "2023-02-29",
            "1900-02-29",
            "2024-00-01",
            "2024-13-01",
            "2024-01-00",
            "2024-04-31",
            "infinity",
            "10000-01-01",
            "0044-03-15 BC",
            "2024-1-01",
            "2024/01/01",
            "",
            "+024-01-01",
        ] {
            assert_eq!(
                decoded(dates, &["2024-01-01", odd]),
                format!(r#"texts [Some("2024-01-01"), Some({odd:?})]"#)
            );
            let texts = decoded(timestamps, &["2024-01-01 00:00:00", &format!("{odd} 00:00:00")]);
            assert!(texts.starts_with("texts"), "{odd}");
        }
        let day = 86_400_000_000_i64;
        let found = decoded(timestamps, &["1970-01-02 00:00:00.000001", "NULL", "1969-12-31 23:59:59.5"]);
        assert_eq!(found, format!("timestamps [Some({}), None, Some(-500000)]", day + 1));
        for odd in [
            "24:00:00",
            "00:60:00",
            "00:00:60",
            "00:00",
            "00:00:00.",
            "00:00:00.1234567",
            "00:00:00+00",
            "0:00:00",
        ] {
            assert!(decoded(timestamps, &[&format!("2024-01-01 {odd}")]).starts_with("texts"), "{odd}");
        }
        let found = decoded(
            instants,
            &[
                "1970-01-01 02:00:00+02",
                "1969-12-31 20:30:00.25-03:30",
                "1970-01-01 00:17:30+00:17:30",
                "NULL",
            ],
        );
        assert_eq!(found, "instants [Some(0), Some(250000), Some(0), None]");
        for odd in ["", "+2", "02", "+02:", "+02:30:", "+02:30:00:00", "Z"] {
            assert!(decoded(instants, &[&format!("2024-01-01 00:00:00{odd}")]).starts_with("texts"), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(values in proptest::collection::vec(any::<Option<Vec<u8>>>(), 0..5), text in "[-+:. 0-9T]{0,32}") {
            let mut raw: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
            raw.push(Some(text.as_bytes()));
            let raw = column(&raw);
            for decoder in [ints, floats, decimals, texts, blobs, hex_blobs, bools, dates, timestamps, instants] {
                decode(&raw, Decoder::new(decoder, None));
            }
        }
    }
}
