//! INSERTs of many rows by the binary protocol. Values go from the arrays of a batch to the packet, without a text or an
//! allocation for each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use mysql_common::constants::{ColumnType, Command};

use super::failure::{Failure, NEEDS_PREPARATION};
use super::responses::{parse_ok, receive_prepared};
use super::{EXECUTE_ONCE, MysqlDatabase};
use crate::calendar::civil;
use crate::{Error, Value, Values};

/// Maximum number of parameters of a statement. The protocol allows 65,535, but then a server takes twice the time for a
/// row, since its lists of parameters leave the processor's cache. A table has 4,096 columns at most.
const MAX_PARAMETERS: usize = 8192;
/// Maximum size of the values of an INSERT with several rows. With the types and NULLs of all parameters, a packet stays
/// below 1 MiB, the smallest default of `max_allowed_packet`. A larger row is an INSERT of its own.
const VALUE_BYTES: usize = (1 << 20) - 4 * MAX_PARAMETERS;
/// Maximum size of the length of a text or byte string.
const LENGTH: usize = 9;
/// Size of a date, or time, with its length.
const MOMENT: usize = 12;
const UNSIGNED: u8 = 0x80;

/// The INSERTs of a table. The number of rows of each is `most`, or a power of two below it. So a table needs few
/// prepared statements, whatever the sizes of its rows and batches are.
pub(super) struct Inserts {
    /// Quoted name of the table.
    table: String,
    columns: usize,
    /// For each column of the table, whether it is an ENUM.
    are_enums: Vec<bool>,
    /// Maximum number of rows of an INSERT.
    most: usize,
    /// By their number of rows.
    prepared: BTreeMap<usize, PreparedInsert>,
    packet: Vec<u8>,
}

struct PreparedInsert {
    id: u32,
    /// Types of the parameters of its last execution.
    types: Vec<u8>,
}

impl Inserts {
    /// For a table with so many columns.
    pub(super) fn new(table: &str, columns: usize, are_enums: Vec<bool>) -> Self {
        Self {
            table: table.to_owned(),
            columns,
            are_enums,
            most: (MAX_PARAMETERS / columns.max(1)).max(1),
            prepared: BTreeMap::new(),
            packet: Vec::new(),
        }
    }

    /// Whether they are those of this table.
    pub(super) fn are_of(&self, table: &str, columns: usize) -> bool {
        self.table == table && self.columns == columns
    }

    /// Number of values that may be outside the list of their ENUM. Each is an empty text, and causes a warning when it is
    /// written again.
    pub(super) fn outside_lists(&self, columns: &[Values]) -> u64 {
        let enums = self.are_enums.iter().zip(columns).filter(|(is_enum, _)| **is_enum);
        let count = |(_, values): (_, &Values)| match values {
            Values::Texts(texts) => texts.iter().filter(|it| *it == Some("")).count() as u64,
            _ => 0,
        };
        enums.map(count).sum()
    }

    /// Number of rows of the next INSERT, of a batch with these columns, from this row.
    pub(super) fn next_rows(&self, columns: &[Values], begin: usize, end: usize) -> usize {
        let fits = |rows: &usize| {
            *rows <= end - begin
                && columns.iter().map(|it| size(it, begin, begin + rows)).sum::<usize>() <= VALUE_BYTES
        };
        let powers = (0..usize::BITS).rev().map(|it| 1 << it).skip_while(|rows| *rows >= self.most);
        std::iter::once(self.most).chain(powers).find(fits).unwrap_or(1)
    }

    /// Inserts these rows of a batch. Returns the number of warnings.
    pub(super) fn insert(
        &mut self,
        database: &mut MysqlDatabase,
        columns: &[Values],
        begin: usize,
        rows: usize,
    ) -> Result<u16, Failure> {
        match self.insert_once(database, columns, begin, rows) {
            // Nothing was inserted.
            Err(Failure::Server { code: NEEDS_PREPARATION, .. }) => {
                if let Some(prepared) = self.prepared.remove(&rows) {
                    database.close(prepared.id)?;
                }
                self.insert_once(database, columns, begin, rows)
            }
            other => other,
        }
    }

    fn insert_once(
        &mut self,
        database: &mut MysqlDatabase,
        columns: &[Values],
        begin: usize,
        rows: usize,
    ) -> Result<u16, Failure> {
        let prepared = match self.prepared.entry(rows) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(prepare(database, &self.table, self.columns, rows)?),
        };
        self.packet.clear();
        self.packet.extend_from_slice(&prepared.id.to_le_bytes());
        self.packet.extend_from_slice(&EXECUTE_ONCE);
        put_rows(columns, begin..begin + rows, &mut prepared.types, &mut self.packet)?;
        database.command(Command::COM_STMT_EXECUTE, &self.packet, |session| {
            let packet = session.packets.receive()?;
            if let [0xff, ..] = packet {
                return Err(Failure::from_packet(packet));
            }
            Ok(parse_ok(packet, session.capabilities)?.warnings())
        })
    }

    /// Closes the statements.
    pub(super) fn close(self, database: &mut MysqlDatabase) -> Result<(), Failure> {
        self.prepared.into_values().try_for_each(|it| database.close(it.id))
    }
}

fn prepare(
    database: &mut MysqlDatabase,
    table: &str,
    columns: usize,
    rows: usize,
) -> Result<PreparedInsert, Failure> {
    let row = format!("({})", vec!["?"; columns].join(","));
    let sql = format!("INSERT INTO {table} VALUES {}", vec![row.as_str(); rows].join(","));
    let prepared = database.command(Command::COM_STMT_PREPARE, sql.as_bytes(), receive_prepared)?;
    if usize::from(prepared.parameters) != columns * rows {
        return Err(Failure::Protocol("another number of parameters"));
    }
    Ok(PreparedInsert { id: prepared.id, types: Vec::new() })
}

/// Adds the NULLs, types and values of rows. The types are sent if they differ from those of the last execution.
fn put_rows(
    columns: &[Values],
    rows: std::ops::Range<usize>,
    last_types: &mut Vec<u8>,
    packet: &mut Vec<u8>,
) -> Result<(), Error> {
    let parameters = rows.len() * columns.len();
    let nulls = packet.len();
    packet.resize(nulls + parameters.div_ceil(8), 0);
    let types: Vec<u8> =
        rows.clone().flat_map(|row| columns.iter().flat_map(move |it| type_of(it, row))).collect();
    packet.push(u8::from(types != *last_types));
    if types != *last_types {
        packet.extend_from_slice(&types);
        *last_types = types;
    }
    let mut parameter = 0;
    for row in rows {
        for column in columns {
            if !put(column, row, packet)? {
                packet[nulls + parameter / 8] |= 1 << (parameter % 8);
            }
            parameter += 1;
        }
    }
    Ok(())
}

/// Type and sign of a value.
fn type_of(values: &Values, row: usize) -> [u8; 2] {
    let code = match values {
        Values::Null => ColumnType::MYSQL_TYPE_NULL,
        Values::Bools(_) => ColumnType::MYSQL_TYPE_TINY,
        Values::Ints(_) => ColumnType::MYSQL_TYPE_LONGLONG,
        Values::Uints(_) => return [ColumnType::MYSQL_TYPE_LONGLONG as u8, UNSIGNED],
        Values::Floats(_) => ColumnType::MYSQL_TYPE_DOUBLE,
        Values::Texts(_) => ColumnType::MYSQL_TYPE_VAR_STRING,
        Values::Blobs(_) => ColumnType::MYSQL_TYPE_BLOB,
        Values::Decimals(_) => ColumnType::MYSQL_TYPE_NEWDECIMAL,
        Values::Dates(_) => ColumnType::MYSQL_TYPE_DATE,
        Values::Timestamps(_) | Values::Instants(_) => ColumnType::MYSQL_TYPE_DATETIME,
        Values::Mixed(values) => match values.get(row) {
            None | Some(Value::Null) => ColumnType::MYSQL_TYPE_NULL,
            Some(Value::Int(_)) => ColumnType::MYSQL_TYPE_LONGLONG,
            Some(Value::Float(_)) => ColumnType::MYSQL_TYPE_DOUBLE,
            Some(Value::Text(_)) => ColumnType::MYSQL_TYPE_VAR_STRING,
            Some(Value::Blob(_) | Value::NotUtf8(_)) => ColumnType::MYSQL_TYPE_BLOB,
        },
    };
    [code as u8, 0]
}

/// Upper bound for the size of a column's values in these rows.
fn size(values: &Values, begin: usize, end: usize) -> usize {
    let rows = end - begin;
    let long = |offsets: &[i32]| {
        let at = |row: usize| offsets.get(row).map_or(0, |it| usize::try_from(*it).unwrap_or_default());
        at(end).saturating_sub(at(begin)) + LENGTH * rows
    };
    match values {
        Values::Null => 0,
        Values::Bools(_) => rows,
        Values::Ints(_) | Values::Uints(_) | Values::Floats(_) => 8 * rows,
        Values::Texts(array) | Values::Decimals(array) => long(array.value_offsets()),
        Values::Blobs(array) => long(array.value_offsets()),
        Values::Dates(_) | Values::Timestamps(_) | Values::Instants(_) => MOMENT * rows,
        Values::Mixed(values) => {
            values.iter().skip(begin).take(rows).map(|it| it.long_bytes() + LENGTH).sum()
        }
    }
}

/// Adds a value. Returns whether it is not NULL.
fn put(values: &Values, row: usize, out: &mut Vec<u8>) -> Result<bool, Error> {
    use arrow_array::Array as _;

    match values {
        Values::Null => return Ok(false),
        Values::Mixed(values) => match values.get(row) {
            None | Some(Value::Null) => return Ok(false),
            Some(Value::Int(value)) => out.extend_from_slice(&value.to_le_bytes()),
            Some(Value::Float(value)) => return Ok(put_float(*value, out)),
            Some(Value::Text(text)) => put_bytes(text.as_bytes(), out),
            Some(Value::Blob(bytes) | Value::NotUtf8(bytes)) => put_bytes(bytes, out),
        },
        Values::Bools(array) if array.is_valid(row) => out.push(u8::from(array.value(row))),
        Values::Ints(array) if array.is_valid(row) => out.extend_from_slice(&array.value(row).to_le_bytes()),
        Values::Uints(array) if array.is_valid(row) => out.extend_from_slice(&array.value(row).to_le_bytes()),
        Values::Floats(array) if array.is_valid(row) => return Ok(put_float(array.value(row), out)),
        Values::Texts(array) | Values::Decimals(array) if array.is_valid(row) => {
            put_bytes(array.value(row).as_bytes(), out);
        }
        Values::Blobs(array) if array.is_valid(row) => put_bytes(array.value(row), out),
        Values::Dates(array) if array.is_valid(row) => put_day(array.value(row), out)?,
        Values::Timestamps(array) | Values::Instants(array) if array.is_valid(row) => {
            put_moment(array.value(row), out)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The server stores finite numbers only.
fn put_float(value: f64, out: &mut Vec<u8>) -> bool {
    if value.is_finite() {
        out.extend_from_slice(&value.to_le_bytes());
    }
    value.is_finite()
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = (bytes.len() as u64).to_le_bytes();
    match bytes.len() {
        0..=250 => out.push(length[0]),
        251..=0xffff => out.extend_from_slice(&[0xfc, length[0], length[1]]),
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&length);
        }
    }
    out.extend_from_slice(bytes);
}

fn put_day(days: i32, out: &mut Vec<u8>) -> Result<(), Error> {
    out.push(4);
    out.extend_from_slice(&date(days.into())?);
    Ok(())
}

fn put_moment(micros: i64, out: &mut Vec<u8>) -> Result<(), Error> {
    const DAY: i64 = 86_400_000_000;

    let time = micros.rem_euclid(DAY);
    let [y1, y2, month, day] = date(micros.div_euclid(DAY))?;
    let number = |part: i64| u8::try_from(part).unwrap_or_default();
    let seconds = time / 1_000_000;
    let [hour, minute, second] = [seconds / 3600, seconds / 60 % 60, seconds % 60].map(number);
    let [f1, f2, f3, f4] = u32::try_from(time % 1_000_000).unwrap_or_default().to_le_bytes();
    out.extend_from_slice(&[11, y1, y2, month, day, hour, minute, second, f1, f2, f3, f4]);
    Ok(())
}

/// Year, month and day.
fn date(days: i64) -> Result<[u8; 4], Error> {
    let (year, month, day) = civil(days);
    match u16::try_from(year) {
        Ok(year @ 0..=9999) => {
            let [y1, y2] = year.to_le_bytes();
            Ok([y1, y2, month, day])
        }
        _ => Err(outside_calendar()),
    }
}

fn outside_calendar() -> Error {
    Error::user("cannot write a date: its year is not between 0 and 9999; cast it to text in the select")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Date32Array, Float64Array, StringArray};

    fn encoded(values: &Values) -> Vec<Option<Vec<u8>>> {
        let rows = values.array().map_or(2, |array| array.len());
        let encode = |row| {
            let mut out = Vec::new();
            put(values, row, &mut out).unwrap().then_some(out)
        };
        (0..rows).map(encode).collect()
    }

    #[test]
    fn values_are_encoded() {
        let dates = Values::Dates(Date32Array::from(vec![Some(-1), None]));
        assert_eq!(encoded(&dates), [Some(vec![4, 0xb1, 7, 12, 31]), None]);
        let moments = Values::Instants(vec![-1, 86_400_000_001].into());
        let before = vec![11, 0xb1, 7, 12, 31, 23, 59, 59, 0x3f, 0x42, 0x0f, 0];
        assert_eq!(encoded(&moments), [Some(before), Some(vec![11, 0xb2, 7, 1, 2, 0, 0, 0, 1, 0, 0, 0])]);
        let floats = Values::Floats(Float64Array::from(vec![1.5, f64::NAN, f64::INFINITY]));
        assert_eq!(encoded(&floats), [Some(1.5_f64.to_le_bytes().to_vec()), None, None]);
        assert_eq!(encoded(&Values::Null), [None, None]);
        for (length, head) in [
            (0, vec![0]),
            (250, vec![250]),
            (251, vec![0xfc, 251, 0]),
            (0x1_0000, vec![0xfe, 0, 0, 1, 0, 0, 0, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let found = encoded(&Values::Texts(StringArray::from(vec![text.as_str()])));
            assert_eq!(found, [Some([head, text.into_bytes()].concat())], "{length}");
        }
        for values in [Values::Dates(vec![i32::MAX].into()), Values::Timestamps(vec![i64::MIN].into())] {
            assert!(put(&values, 0, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn types_are_sent_when_they_change() {
        let mut types = Vec::new();
        let mut packet = |value: Value| {
            let columns = [Values::Mixed(vec![value]), Values::Null];
            let mut packet = Vec::new();
            put_rows(&columns, 0..1, &mut types, &mut packet).unwrap();
            packet
        };
        assert_eq!(packet(Value::Text("a".into())), [0b10, 1, 253, 0, 6, 0, 1, b'a']);
        assert_eq!(packet(Value::Text("b".into())), [0b10, 0, 1, b'b']);
        assert_eq!(packet(Value::Null), [0b11, 1, 6, 0, 6, 0]);
    }

    #[test]
    fn inserts_are_bounded_and_of_few_sizes() {
        let floats = vec![Values::Floats(vec![0.5; 70_000].into()); 21];
        let inserts = Inserts::new("t", 21, Vec::new());
        assert_eq!(inserts.next_rows(&floats, 0, 70_000), 390);
        assert_eq!(inserts.next_rows(&floats, 69_700, 70_000), 256);
        assert_eq!(inserts.next_rows(&floats, 69_999, 70_000), 1);
        let texts = Values::Texts(StringArray::from(vec!["x".repeat(10_000); 100]));
        let rows = Inserts::new("t", 1, Vec::new()).next_rows(std::slice::from_ref(&texts), 0, 100);
        assert_eq!((rows, size(&texts, 0, rows) <= VALUE_BYTES), (64, true));
        let long = Values::Texts(StringArray::from(vec!["x".repeat(2 << 20); 2]));
        assert_eq!(Inserts::new("t", 1, Vec::new()).next_rows(&[long], 0, 2), 1);
    }
}
