//! The binary form of `numeric`: groups of four decimal digits.

use super::messages::chunk;

/// Digits in a group.
const GROUP: usize = 4;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// Appends a number that the server printed. `None`: it is not one.
pub(super) fn put(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let special = match text {
        "NaN" => NAN,
        "Infinity" => INFINITY,
        "-Infinity" => NEGATIVE_INFINITY,
        _ => return put_digits(text, out),
    };
    put_header(0, 0, special, 0, out);
    Some(())
}

fn put_digits(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (sign, digits) = text.strip_prefix('-').map_or((0, text), |digits| (NEGATIVE, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    // Groups begin at the point.
    let lead = (GROUP - whole.len() % GROUP) % GROUP;
    let first_weight = (lead + whole.len()) / GROUP;
    let digit = |place: usize| -> u16 {
        let Some(place) = place.checked_sub(lead) else { return 0 };
        let byte = whole.as_bytes().get(place).or_else(|| fraction.as_bytes().get(place - whole.len()));
        byte.map_or(0, |it| u16::from(it - b'0'))
    };
    let group = |place: usize| (0..GROUP).fold(0, |sum, it| sum * 10 + digit(place * GROUP + it));
    let count = (lead + whole.len() + fraction.len()).div_ceil(GROUP);
    // Zeros at both ends are not stored.
    let begin = (0..count).find(|it| group(*it) != 0).unwrap_or(count);
    let end = (begin..count).rev().find(|it| group(*it) != 0).map_or(begin, |it| it + 1);
    let is_zero = begin == end;
    let weight = if is_zero { 0 } else { i16::try_from(first_weight).ok()? - i16::try_from(begin).ok()? - 1 };
    let scale = u16::try_from(fraction.len()).ok()?;
    put_header(u16::try_from(end - begin).ok()?, weight, if is_zero { 0 } else { sign }, scale, out);
    out.extend((begin..end).flat_map(|it| group(it).to_be_bytes()));
    Some(())
}

/// Appends the number of groups, the power of 10,000 of the first one, the sign, and the number of digits after the
/// point.
fn put_header(groups: u16, weight: i16, sign: u16, scale: u16, out: &mut Vec<u8>) {
    out.extend(groups.to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(scale.to_be_bytes());
}

/// Appends a number as the server prints it. `None`: it is malformed.
pub(super) fn print(mut value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut header = [0; 4];
    for part in &mut header {
        *part = u16::from_be_bytes(chunk(&mut value)?);
    }
    let [count, weight, sign, scale] = header;
    let (groups, []) = value.as_chunks::<2>() else { return None };
    if groups.len() != usize::from(count) {
        return None;
    }
    match sign {
        NAN => out.extend_from_slice(b"NaN"),
        INFINITY => out.extend_from_slice(b"Infinity"),
        NEGATIVE_INFINITY => out.extend_from_slice(b"-Infinity"),
        0 | NEGATIVE => {
            if sign == NEGATIVE {
                out.push(b'-');
            }
            print_digits(groups, weight.cast_signed().into(), scale.into(), out)?;
        }
        _ => return None,
    }
    Some(())
}

/// Appends the digits of groups, of which the first one has this weight.
fn print_digits(groups: &[[u8; 2]], weight: i32, scale: usize, out: &mut Vec<u8>) -> Option<()> {
    let digits = |weight_of_group: i32| {
        let group = usize::try_from(weight - weight_of_group).ok().and_then(|it| groups.get(it));
        let number = group.map_or(0, |it| u16::from_be_bytes(*it));
        let digit = |power: u16| u8::try_from(number / power % 10).map(|it| b'0' + it).ok();
        (number < 10_000).then_some([digit(1000)?, digit(100)?, digit(10)?, digit(1)?])
    };
    let first = digits(weight.max(0))?;
    let zeros = first.iter().take(GROUP - 1).take_while(|it| **it == b'0').count();
    out.extend_from_slice(&first[zeros..]);
    for weight_of_group in (0..weight).rev() {
        out.extend_from_slice(&digits(weight_of_group)?);
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + scale;
        for weight_of_group in (i32::MIN..0).rev() {
            if out.len() >= end {
                break;
            }
            out.extend_from_slice(&digits(weight_of_group)?);
        }
        out.truncate(end);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(text: &str) -> Option<Vec<u16>> {
        let mut out = Vec::new();
        put(text, &mut out)?;
        Some(out.chunks_exact(2).map(|it| u16::from_be_bytes([it[0], it[1]])).collect())
    }

    fn printed(text: &str) -> Option<String> {
        let (mut binary, mut out) = (Vec::new(), Vec::new());
        put(text, &mut binary)?;
        print(&binary, &mut out)?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn groups_are_as_in_the_server() {
        for (text, expected) in [
            ("0", vec![0, 0, 0, 0]),
            ("0.00", vec![0, 0, 0, 2]),
            ("12345.678", vec![3, 1, 0, 3, 1, 2345, 6780]),
            ("-100000000", vec![1, 2, NEGATIVE, 0, 1]),
            ("0.00010000", vec![1, u16::MAX, 0, 8, 1]),
            ("NaN", vec![0, 0, NAN, 0]),
            ("-Infinity", vec![0, 0, NEGATIVE_INFINITY, 0]),
        ] {
            assert_eq!(binary(text), Some(expected), "{text}");
        }
        for wrong in ["", ".", "-", "1e5", "1.2.3", "+1", "٣", "nan", " 1"] {
            assert_eq!(binary(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_exact(sign in "-?", whole in "0|[1-9][0-9]{0,20}", fraction in "(\\.[0-9]{1,20})?") {
            let digits = format!("{whole}{fraction}");
            let is_zero = digits.bytes().all(|it| matches!(it, b'0' | b'.'));
            let text = if is_zero { digits } else { format!("{sign}{digits}") };
            prop_assert_eq!(printed(&text).unwrap(), text);
        }

        #[test]
        fn no_text_panics(text in "[-0-9.]{0,8}|.*") {
            let _ = binary(&text);
        }

        #[test]
        fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = print(&value, &mut Vec::new());
        }
    }
}
