//! The server's messages. Each is read from the body of its frame; `None`: the body is malformed.

use super::frames::MAX_FRAME;

/// Receives the values of a column.
pub(super) trait Cells {
    /// Adds a value. Returns the bytes that it needs beyond those that arrived. `None`: it is malformed.
    fn push(&mut self, value: &[u8]) -> Option<usize>;

    fn push_null(&mut self);
}

/// A column of a result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// OID of its type.
    pub(super) oid: u32,
    /// Length, precision and scale, in the form of its type; negative: none.
    pub(super) modifier: i32,
    /// Whether values are sent as the server stores them: those of a BINARY cursor. Otherwise they are texts.
    pub(super) is_binary: bool,
}

/// An error or a notice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServerMessage {
    /// `ERROR`, `NOTICE` and so on, in the server's language.
    pub(super) severity: String,
    /// SQLSTATE.
    pub(super) state: String,
    pub(super) message: String,
    pub(super) detail: String,
    pub(super) hint: String,
    /// Place in the statement in characters, from 1.
    pub(super) position: Option<usize>,
    /// The file of the server's source that reports it.
    pub(super) file: String,
}

/// The columns that a RowDescription announces.
pub(super) fn fields(mut body: &[u8]) -> Option<Vec<Field>> {
    let count = u16::from_be_bytes(chunk(&mut body)?);
    let fields = (0..count).map(|_| {
        let name = text(&mut body)?;
        // Table and number of the column.
        chunk::<6>(&mut body)?;
        let oid = u32::from_be_bytes(chunk(&mut body)?);
        // Length of the type.
        chunk::<2>(&mut body)?;
        let modifier = i32::from_be_bytes(chunk(&mut body)?);
        let is_binary = u16::from_be_bytes(chunk(&mut body)?) == 1;
        Some(Field { name, oid, modifier, is_binary })
    });
    let fields = fields.collect::<Option<Vec<_>>>()?;
    body.is_empty().then_some(fields)
}

/// Adds the values of a DataRow to the columns. Returns their size in bytes. Ends if they are larger than a row may be.
pub(super) fn add_row(mut body: &[u8], columns: &mut [impl Cells]) -> Option<usize> {
    let mut size = body.len();
    if usize::from(u16::from_be_bytes(chunk(&mut body)?)) != columns.len() {
        return None;
    }
    for column in columns {
        match i32::from_be_bytes(chunk(&mut body)?) {
            -1 => column.push_null(),
            length => {
                let (value, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
                size += column.push(value)?;
                if size > MAX_FRAME {
                    return Some(size);
                }
                body = rest;
            }
        }
    }
    body.is_empty().then_some(size)
}

/// An ErrorResponse or NoticeResponse.
pub(super) fn server_message(mut body: &[u8]) -> Option<ServerMessage> {
    let mut message = ServerMessage::default();
    loop {
        let [kind] = chunk(&mut body)?;
        if kind == 0 {
            return Some(message);
        }
        let value = text(&mut body)?;
        match kind {
            b'S' => message.severity = value,
            b'C' => message.state = value,
            b'M' => message.message = value,
            b'D' => message.detail = value,
            b'H' => message.hint = value,
            b'P' => message.position = value.parse().ok(),
            b'F' => message.file = value,
            _ => {}
        }
    }
}

/// Name and value of a ParameterStatus.
pub(super) fn parameter(mut body: &[u8]) -> Option<(String, String)> {
    Some((text(&mut body)?, text(&mut body)?))
}

/// Number of changed rows in the tag of a CommandComplete: `INSERT 0 3`, `UPDATE 2`.
pub(super) fn changed_rows(mut body: &[u8]) -> Option<Option<u64>> {
    let tag = text(&mut body)?;
    let mut words = tag.split(' ');
    let counts = ["INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "FETCH", "MOVE", "COPY"];
    let count = words.next().filter(|word| counts.contains(word)).and(words.next_back());
    Some(count.and_then(|it| it.parse().ok()))
}

/// The next bytes.
pub(super) fn chunk<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(*bytes)
}

/// The next text, up to its NUL. A database without an encoding may have texts that are not UTF-8.
pub(super) fn text(body: &mut &[u8]) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let value = String::from_utf8_lossy(&body[..end]).into_owned();
    *body = &body[end + 1..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use arrow_array::Array as _;
    use proptest::prelude::*;

    use super::*;
    use crate::printed::PrintedColumn;

    impl Cells for PrintedColumn {
        fn push(&mut self, value: &[u8]) -> Option<usize> {
            self.push(value);
            Some(0)
        }

        fn push_null(&mut self) {
            self.push_null();
        }
    }

    #[test]
    fn messages_are_read() {
        let body = [
            b"\0\x02a\0\0\0\0\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0".to_vec(),
            b"\xff\0\0\0\0\0\0\0\0\0\x06\xa4\xff\xff\0\x0a\0\x06\0\x01".to_vec(),
        ];
        let expected = [
            Field { name: "a".into(), oid: 23, modifier: -1, is_binary: false },
            Field { name: "\u{fffd}".into(), oid: 1700, modifier: 0xa_0006, is_binary: true },
        ];
        assert_eq!(fields(&body.concat()).unwrap(), expected);
        let error = server_message(b"SERROR\0VERROR\0C42P01\0Mno x\0P15\0Hlook\0Fgram.y\0\0").unwrap();
        assert_eq!((&*error.severity, &*error.state, &*error.message), ("ERROR", "42P01", "no x"));
        assert_eq!((&*error.detail, &*error.hint, error.position), ("", "look", Some(15)));
        assert_eq!(error.file, "gram.y");
        assert_eq!(parameter(b"a\0b\0"), Some(("a".into(), "b".into())));
        for (tag, rows) in [
            ("INSERT 0 3", Some(3)),
            ("UPDATE 2", Some(2)),
            ("SELECT 5", Some(5)),
            ("CREATE TABLE", None),
            ("DO", None),
            ("INSERT", None),
        ] {
            assert_eq!(changed_rows(format!("{tag}\0").as_bytes()), Some(rows), "{tag}");
        }
    }

    #[test]
    fn rows_are_added_to_columns() {
        let mut columns = [PrintedColumn::default(), PrintedColumn::default()];
        assert_eq!(add_row(b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff", &mut columns), Some(12));
        assert_eq!(add_row(b"\0\x02\0\0\0\0\0\0\0\x01x", &mut columns), Some(11));
        let [first, second] = columns.each_mut().map(PrintedColumn::take);
        assert_eq!((first.value(0), first.value(1)), (&b"ab"[..], &b""[..]));
        assert!(second.is_null(0) && second.value(1) == b"x");
        for wrong in [
            &b""[..],
            b"\0\x01\0\0\0\0",
            b"\0\x02\0\0\0\0",
            b"\0\x02\xff\xff\xff\xfe\0\0\0\0",
            b"\0\x02\0\0\0\0\0\0\0\0x",
            b"\0\x02\0\0\0\x02a",
        ] {
            assert_eq!(add_row(wrong, &mut columns), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>, count in 0_u8..3) {
            let body = [&[0, count], &body[..]].concat();
            for body in [&body[..], &body[2..]] {
                let mut columns = [PrintedColumn::default(), PrintedColumn::default()];
                add_row(body, &mut columns[..count.min(2).into()]);
                let _ = (fields(body), server_message(body), parameter(body), changed_rows(body));
            }
        }
    }
}
