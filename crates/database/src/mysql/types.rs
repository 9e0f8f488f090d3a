//! Columns: names of types, and decoders.

use arrow_array::{Array as _, BinaryArray, Int64Array, UInt64Array};
use mysql_common::collations::{Collation, CollationId};
use mysql_common::constants::{ColumnFlags, ColumnType};
use mysql_common::io::ParseBuf;

use super::binary::Form;
use crate::printed::{self, Decoder};
use crate::{Column, Kind, Values};

/// The character set of byte strings.
const BINARY: u16 = 63;

/// A column of a result set, as the server describes it.
#[derive(Debug)]
pub(super) struct Field {
    name: String,
    charset: u16,
    length: u32,
    code: u8,
    flags: ColumnFlags,
    scale: u8,
}

impl Field {
    /// Parses the description. `None`: it is malformed.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let mut packet = ParseBuf(packet);
        // Catalogue, schema, table, original table.
        for _ in 0..4 {
            packet.checked_eat_lenenc_str()?;
        }
        let name = String::from_utf8_lossy(packet.checked_eat_lenenc_str()?).into_owned();
        packet.checked_eat_lenenc_str()?;
        // Before it is the length of the rest.
        let &[_, c1, c2, l1, l2, l3, l4, code, f1, f2, scale, ..] = packet.0 else { return None };
        Some(Self {
            name,
            charset: u16::from_le_bytes([c1, c2]),
            length: u32::from_le_bytes([l1, l2, l3, l4]),
            code,
            flags: ColumnFlags::from_bits_truncate(u16::from_le_bytes([f1, f2])),
            scale,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The column for callers, and its decoder.
    pub(super) fn column(self) -> (Column, Decoder) {
        let (database_type, decoder) = self.type_and_decoder();
        (Column { name: self.name, database_type, kind: decoder.kind }, decoder)
    }

    /// How the binary protocol encodes the values.
    pub(super) fn form(&self) -> Form {
        let is_unsigned = self.flags.contains(ColumnFlags::UNSIGNED_FLAG);
        Form::of(ColumnType::try_from(self.code).ok(), is_unsigned, self.scale)
    }

    /// Whether the values are floating point numbers.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.form(), Form::Float(_) | Form::Double(_))
    }

    /// Whether the server shows the values in the session's time zone.
    pub(super) fn is_zoned(&self) -> bool {
        matches!(ColumnType::try_from(self.code), Ok(ColumnType::MYSQL_TYPE_TIMESTAMP))
    }

    fn type_and_decoder(&self) -> (String, Decoder) {
        use ColumnType as C;

        let integer = |name: &str| {
            let sign = if self.flags.contains(ColumnFlags::UNSIGNED_FLAG) { " UNSIGNED" } else { "" };
            format!("{name}{sign}")
        };
        let (name, decoder): (&str, Decoder) = match ColumnType::try_from(self.code) {
            // BOOLEAN is an alias of it.
            Ok(C::MYSQL_TYPE_TINY) if self.length == 1 => ("TINYINT(1)", printed::INTS),
            Ok(C::MYSQL_TYPE_TINY) => return (integer("TINYINT"), printed::INTS),
            Ok(C::MYSQL_TYPE_SHORT) => return (integer("SMALLINT"), printed::INTS),
            Ok(C::MYSQL_TYPE_INT24) => return (integer("MEDIUMINT"), printed::INTS),
            Ok(C::MYSQL_TYPE_LONG) => return (integer("INT"), printed::INTS),
            Ok(C::MYSQL_TYPE_LONGLONG) => return (integer("BIGINT"), printed::INTS),
            Ok(C::MYSQL_TYPE_YEAR) => ("YEAR", printed::INTS),
            Ok(C::MYSQL_TYPE_BIT) => return (format!("BIT({})", self.length), BITS),
            Ok(C::MYSQL_TYPE_FLOAT) => ("FLOAT", printed::FLOATS),
            Ok(C::MYSQL_TYPE_DOUBLE) => ("DOUBLE", printed::FLOATS),
            Ok(C::MYSQL_TYPE_DECIMAL) => ("DECIMAL", printed::DECIMALS),
            Ok(C::MYSQL_TYPE_NEWDECIMAL) => {
                return (format!("DECIMAL({},{})", self.precision(), self.scale), printed::DECIMALS);
            }
            Ok(C::MYSQL_TYPE_DATE | C::MYSQL_TYPE_NEWDATE) => ("DATE", printed::DATES),
            Ok(C::MYSQL_TYPE_DATETIME) => ("DATETIME", printed::TIMESTAMPS),
            // Printed in the session's time zone, without naming it.
            Ok(C::MYSQL_TYPE_TIMESTAMP) => ("TIMESTAMP", printed::TIMESTAMPS),
            Ok(C::MYSQL_TYPE_TIME) => ("TIME", printed::TEXTS),
            Ok(C::MYSQL_TYPE_JSON) => ("JSON", printed::TEXTS),
            Ok(C::MYSQL_TYPE_NULL) => ("NULL", printed::TEXTS),
            Ok(C::MYSQL_TYPE_GEOMETRY) => ("GEOMETRY", printed::BLOBS),
            other => return self.string(other.ok()),
        };
        (name.to_owned(), decoder)
    }

    /// Texts and byte strings share a few types; the character set distinguishes them.
    fn string(&self, code: Option<ColumnType>) -> (String, Decoder) {
        use ColumnType as C;

        let is_blob = matches!(
            code,
            Some(
                C::MYSQL_TYPE_TINY_BLOB
                    | C::MYSQL_TYPE_MEDIUM_BLOB
                    | C::MYSQL_TYPE_LONG_BLOB
                    | C::MYSQL_TYPE_BLOB
            )
        );
        let name = match (self.charset == BINARY, is_blob) {
            (true, true) => "BLOB".to_owned(),
            (true, false) if code == Some(C::MYSQL_TYPE_VAR_STRING) => format!("VARBINARY({})", self.length),
            (true, false) => format!("BINARY({})", self.length),
            (false, true) => "TEXT".to_owned(),
            (false, false) if self.flags.contains(ColumnFlags::ENUM_FLAG) => "ENUM".to_owned(),
            (false, false) if self.flags.contains(ColumnFlags::SET_FLAG) => "SET".to_owned(),
            (false, false) => {
                let kind = if code == Some(C::MYSQL_TYPE_STRING) { "CHAR" } else { "VARCHAR" };
                format!("{kind}({})", self.length / self.bytes_per_character())
            }
        };
        (name, if self.charset == BINARY { printed::BLOBS } else { printed::TEXTS })
    }

    /// The announced length includes the point and the sign.
    fn precision(&self) -> u32 {
        let point = u32::from(self.scale > 0);
        let sign = u32::from(!self.flags.contains(ColumnFlags::UNSIGNED_FLAG));
        self.length.saturating_sub(point + sign)
    }

    fn bytes_per_character(&self) -> u32 {
        match Collation::resolve(CollationId::from(self.charset)).charset() {
            "utf8" | "utf8mb3" => 3,
            // Newer collations than the library knows are of this one.
            "utf8mb4" | "UNKNOWN" | "" => 4,
            _ => 1,
        }
    }
}

const BITS: Decoder = Decoder::new(bits, Some(Kind::Int));

/// BIT(n) is sent as n/8 bytes, most significant first.
fn bits(raw: &BinaryArray) -> Values {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let values: Vec<Option<u64>> = raw.iter().map(|it| it.map(number)).collect();
    let signed: Option<Vec<i64>> =
        values.iter().map(|it| it.map_or(Some(0), |it| i64::try_from(it).ok())).collect();
    match signed {
        Some(signed) => Values::Ints(Int64Array::new(signed.into(), raw.nulls().cloned())),
        None => Values::Uints(UInt64Array::from(values)),
    }
}
