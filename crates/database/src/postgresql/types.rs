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
    Column { name: field.name.clone(), database_type }
}

/// The decoder of a column's values.
pub(super) fn decoder(field: &Field) -> Decoder {
    if field.is_binary { printed::blobs } else { kind(field.oid).1 }
}

fn kind(oid: u32) -> (&'static str, Decoder) {
    match oid {
        16 => ("boolean", printed::bools),
        17 => ("bytea", printed::hex_blobs),
        18 => ("\"char\"", printed::texts),
        19 => ("name", printed::texts),
        20 => ("bigint", printed::ints),
        21 => ("smallint", printed::ints),
        23 => ("integer", printed::ints),
        25 => ("text", printed::texts),
        26 => ("oid", printed::ints),
        114 => ("json", printed::texts),
        142 => ("xml", printed::texts),
        650 => ("cidr", printed::texts),
        700 => ("real", printed::floats),
        701 => ("double precision", printed::floats),
        790 => ("money", printed::texts),
        829 => ("macaddr", printed::texts),
        869 => ("inet", printed::texts),
        CHARACTER => ("character", printed::texts),
        CHARACTER_VARYING => ("character varying", printed::texts),
        1082 => ("date", printed::dates),
        1083 => ("time without time zone", printed::texts),
        1114 => ("timestamp without time zone", printed::timestamps),
        1184 => ("timestamp with time zone", printed::instants),
        1186 => ("interval", printed::texts),
        1266 => ("time with time zone", printed::texts),
        1560 => ("bit", printed::texts),
        1562 => ("bit varying", printed::texts),
        NUMERIC => ("numeric", printed::decimals),
        2950 => ("uuid", printed::texts),
        3802 => ("jsonb", printed::texts),
        1000 => ("boolean[]", printed::texts),
        1005 => ("smallint[]", printed::texts),
        1007 => ("integer[]", printed::texts),
        1009 => ("text[]", printed::texts),
        1015 => ("character varying[]", printed::texts),
        1016 => ("bigint[]", printed::texts),
        1021 => ("real[]", printed::texts),
        1022 => ("double precision[]", printed::texts),
        1231 => ("numeric[]", printed::texts),
        _ => ("", printed::texts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
