//! Parsers of option values.

use sqlflow_cli::address;

use super::OptionalAddress;

/// An address for clients; empty: none.
pub(super) fn client_address(text: &str) -> Result<OptionalAddress, String> {
    if text.is_empty() { Ok(None) } else { address::listen(text).map(Some) }
}

/// Parses a web address. It becomes part of links, so other schemes are refused.
pub(super) fn web_url(text: &str) -> Result<String, String> {
    let is_web =
        ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    is_web.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} does not begin with http:// or https://"))
}

/// `1048576`, `512KiB`, `64MiB`, `1GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no size; write 512KiB, 64MiB or 1GiB"))?;
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        other => return Err(format!("{other:?} is no unit of size; use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlflow_units::duration;

    use super::*;

    #[test]
    fn empty_address_for_clients_is_none() {
        assert_eq!(client_address(""), Ok(None));
        assert_eq!(client_address("127.0.0.1:1"), Ok(Some("127.0.0.1:1".parse().unwrap())));
        assert!(client_address(" ").is_err());
    }

    #[test]
    fn times_and_sizes_with_units_are_parsed() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err() && duration("5y").is_err() && duration("-1s").is_err());
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert!(bytes("1GB").is_err() && bytes("").is_err() && bytes("99999999999TiB").is_err());
    }
}
