//! PostgreSQL's column types: names and decoders.
//!
//! Types are identified by OID. The OIDs of built-in types never change. A type of a user or extension has no name here,
//! and its values are texts as the server prints them.

use super::messages::Field;
use crate::Column;
use crate::printed::{self, Decoder};

const NUMERIC: u32 = 1700;
const CHARACTER: u32 = 1042;
const CHARACTER_VARYING: u32 = 1043;
/// The modifier of a type includes its own four bytes.
const MODIFIER_HEADER: i32 = 4;

/// Describes a column.
pub(super) fn column(field: &Field) -> Column {
    let (name, _) = kind(field.oid);
    let modifier = field.modifier.checked_sub(MODIFIER_HEADER).filter(|it| *it >= 0);
    let database_type = match (field.oid, modifier) {
        (NUMERIC, Some(modifier)) => {
            // The scale is a signed number of 11 bits.
            let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
            format!("{name}({},{scale})", (modifier >> 16) & 0xffff)
        }
        (CHARACTER | CHARACTER_VARYING, Some(modifier)) => format!("{name}({modifier})"),
        _ => name.to_owned(),
    };
    Column { name: field.name.clone(), database_type, kind: decoder(field).kind }
}

/// The decoder of a column's values.
pub(super) fn decoder(field: &Field) -> Decoder {
    if field.is_binary { printed::BLOBS } else { kind(field.oid).1 }
}

fn kind(oid: u32) -> (&'static str, Decoder) {
    match oid {
        16 => ("boolean", printed::BOOLS),
        17 => ("bytea", printed::HEX_BLOBS),
        18 => ("\"char\"", printed::TEXTS),
        19 => ("name", printed::TEXTS),
        20 => ("bigint", printed::INTS),
        21 => ("smallint", printed::INTS),
        23 => ("integer", printed::INTS),
        25 => ("text", printed::TEXTS),
        26 => ("oid", printed::INTS),
        114 => ("json", printed::TEXTS),
        142 => ("xml", printed::TEXTS),
        650 => ("cidr", printed::TEXTS),
        700 => ("real", printed::FLOATS),
        701 => ("double precision", printed::FLOATS),
        790 => ("money", printed::TEXTS),
        829 => ("macaddr", printed::TEXTS),
        869 => ("inet", printed::TEXTS),
        CHARACTER => ("character", printed::TEXTS),
        CHARACTER_VARYING => ("character varying", printed::TEXTS),
        1082 => ("date", printed::DATES),
        1083 => ("time without time zone", printed::TEXTS),
        1114 => ("timestamp without time zone", printed::TIMESTAMPS),
        1184 => ("timestamp with time zone", printed::INSTANTS),
        1186 => ("interval", printed::TEXTS),
        1266 => ("time with time zone", printed::TEXTS),
        1560 => ("bit", printed::TEXTS),
        1562 => ("bit varying", printed::TEXTS),
        NUMERIC => ("numeric", printed::DECIMALS),
        2950 => ("uuid", printed::TEXTS),
        3802 => ("jsonb", printed::TEXTS),
        1000 => ("boolean[]", printed::TEXTS),
        1005 => ("smallint[]", printed::TEXTS),
        1007 => ("integer[]", printed::TEXTS),
        1009 => ("text[]", printed::TEXTS),
        1015 => ("character varying[]", printed::TEXTS),
        1016 => ("bigint[]", printed::TEXTS),
        1021 => ("real[]", printed::TEXTS),
        1022 => ("double precision[]", printed::TEXTS),
        1231 => ("numeric[]", printed::TEXTS),
        _ => ("", printed::TEXTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_decide_the_kind() {
        use crate::Kind as K;

        let kind = |oid, is_binary| column(&Field { name: String::new(), oid, modifier: -1, is_binary }).kind;
        for (oid, expected) in [
            (16, Some(K::Bool)),
            (20, Some(K::Int)),
            (26, Some(K::Int)),
            (700, Some(K::Float)),
            (1700, Some(K::Decimal)),
            (17, Some(K::Blob)),
            (1082, Some(K::Date)),
            (1114, Some(K::Timestamp)),
            (1184, Some(K::Instant)),
            (25, None),
            (790, None),
            (1007, None),
            (600, None),
        ] {
            assert_eq!(kind(oid, false), expected, "{oid}");
        }
        assert_eq!(kind(23, true), Some(K::Blob));
    }

    #[test]
    fn names_have_length_precision_and_scale() {
        let name = |oid, modifier| {
            column(&Field { name: String::new(), oid, modifier, is_binary: false }).database_type
        };
        assert_eq!(name(1700, -1), "numeric");
        assert_eq!(name(1700, (30 << 16 | 4) + 4), "numeric(30,4)");
        assert_eq!(name(1700, (3 << 16 | 0x7fe) + 4), "numeric(3,-2)");
        assert_eq!(name(1043, 13), "character varying(9)");
        assert_eq!(name(1042, 7), "character(3)");
        assert_eq!(name(23, 13), "integer");
        assert_eq!(name(600, -1), "");
        assert_eq!(
            (name(1700, i32::MIN), name(1700, i32::MAX)),
            ("numeric".into(), "numeric(32767,-5)".into())
        );
    }
}
