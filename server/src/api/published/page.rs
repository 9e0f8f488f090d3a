//! A page of Fetch. The published clients show rows only at an end of execution, and lose what follows it in the same
//! page: so it is the last response of its page.

use prost::Message as _;
use sqlflow_proto::published::{EndOfExecution, Response};
use sqlflow_proto::v1::{self, EncodedRows, LogChunk, response::Response as Kind};
use sqlflow_text::cell::Batch;
use tonic::Status;

use super::cursor::{Cursor, Part, Set};
use super::item::{self, Item};
use super::lines::Lines;
use super::row;

/// Bytes from which on nothing is added to a page. Unfinished lines may add 1 MiB; the clients decode 4 MiB.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Tag and length of the page's field.
const OVERHEAD: usize = 6;

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// The responses.
    pub(super) responses: Vec<Response>,
    /// Where the next one begins.
    pub(super) next: Cursor,
    /// Everything that the records show is in this page or an earlier one.
    pub(super) is_whole: bool,
}

/// What may follow the records of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// Records that are in the log.
    ByMore,
    /// Records that are not made yet.
    Later,
    /// None: the job is over.
    ByNothing,
}

/// The page that begins at `from`, of the records after `from.after`.
///
/// # Errors
/// RESOURCE_EXHAUSTED: a row is longer than these clients can receive. DATA_LOSS: rows are damaged.
pub(super) fn page(records: Vec<v1::Response>, from: Cursor, followed: Followed) -> Result<Page, Status> {
    let mut making = Making { responses: Vec::new(), bytes: 0, lines: Lines::default(), at: from };
    let shown = records
        .iter()
        .rposition(|it| it.response.as_ref().is_some_and(item::is_shown))
        .map_or(0, |last| last + 1);
    let count = records.len();
    for (index, record) in records.into_iter().enumerate() {
        let position = record.position;
        let may_grow = index + 1 == count && followed == Followed::Later;
        let taken = match record.response {
            Some(Kind::Log(chunk)) => making.take_output(&chunk, position, may_grow),
            Some(Kind::Rows(rows)) => making.take_rows(&rows, position)?,
            Some(other) => making.take(other)?,
            None => Taken::Whole,
        };
        match taken {
            Taken::Whole | Taken::WithEnd => {
                making.at = Cursor { after: position, part: None, set: making.at.set };
            }
            Taken::Full => return Ok(making.page(false)),
            Taken::ButLine => return Ok(making.page(true)),
        }
        if taken == Taken::WithEnd {
            return Ok(making.page(index + 1 >= shown));
        }
    }
    if followed == Followed::ByNothing && making.at.set == Set::Rows {
        // The statement failed after these rows.
        making.flush();
        making.end_set();
    }
    Ok(making.page(true))
}

/// What of a record is in the page.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// All of it.
    Whole,
    /// All of it, with an end of execution.
    WithEnd,
    /// What stands before `at`; the page is full.
    Full,
    /// All but the beginning of a line, which may be completed by the next record.
    ButLine,
}

struct Making {
    responses: Vec<Response>,
    bytes: usize,
    lines: Lines,
    at: Cursor,
}

impl Making {
    fn page(mut self, is_whole: bool) -> Page {
        self.flush();
        Page { responses: self.responses, next: self.at, is_whole }
    }

    fn add(&mut self, response: Response) {
        self.bytes += response.encoded_len() + OVERHEAD;
        self.responses.push(response);
    }

    fn is_full(&self, more: usize) -> bool {
        !self.responses.is_empty() && self.bytes + more > PAGE_BYTES
    }

    /// Adds the unfinished lines as they are.
    fn flush(&mut self) {
        let mut lines = Vec::new();
        self.lines.flush(&mut lines);
        for line in lines {
            self.add(item::text(&line));
        }
    }

    /// Ends the result set, which has rows.
    fn end_set(&mut self) {
        self.add(item::end(EndOfExecution::default()));
        self.at.set = Set::None;
    }

    /// How much of this record is in an earlier page.
    fn taken_of(&self, record: u64) -> usize {
        let part = self.at.part.filter(|part| part.record == record);
        part.map_or(0, |part| usize::try_from(part.count).unwrap_or(usize::MAX))
    }

    fn take_output(&mut self, chunk: &LogChunk, record: u64, may_grow: bool) -> Taken {
        let mut offset = self.taken_of(record).min(chunk.data.len());
        let mut line_start = None;
        for piece in chunk.data[offset..].split_inclusive(|byte| *byte == b'\n') {
            if self.is_full(0) {
                self.at.part = Some(Part { record, count: offset as u64 });
                return Taken::Full;
            }
            let begins_line = !self.lines.is_unfinished(chunk);
            let mut lines = Vec::new();
            self.lines.push(chunk, piece, &mut lines);
            for line in lines {
                self.add(item::text(&line));
            }
            line_start = Some(offset).filter(|_| begins_line);
            offset += piece.len();
        }
        match line_start {
            Some(start) if may_grow && self.lines.is_unfinished(chunk) => {
                self.lines.forget(chunk);
                self.at.part = Some(Part { record, count: start as u64 });
                Taken::ButLine
            }
            Some(_) | None => Taken::Whole,
        }
    }

    fn take_rows(&mut self, rows: &EncodedRows, record: u64) -> Result<Taken, Status> {
        self.flush();
        let rows = rows.decoded().map_err(row::damaged)?;
        let batch = Batch::new(&rows).map_err(row::damaged)?;
        if self.at.set == Set::None && batch.row_count() > 0 {
            self.add(item::head(item::unnamed(rows.columns.len())));
        }
        for index in self.taken_of(record)..batch.row_count() {
            let response = row::response(&batch, index);
            if self.is_full(response.encoded_len()) {
                self.at.part = Some(Part { record, count: index as u64 });
                return Ok(Taken::Full);
            }
            item::check_response(&response)?;
            self.add(response);
            self.at.set = Set::Rows;
        }
        Ok(Taken::Whole)
    }

    fn take(&mut self, kind: Kind) -> Result<Taken, Status> {
        let Some(item) = Item::of(kind) else { return Ok(Taken::Whole) };
        self.flush();
        let set = self.at.set;
        let after = match &item {
            Item::Head(_) => Set::Head,
            Item::End(_) => Set::None,
            Item::Text(_) | Item::Html(_) | Item::Rows(_) => set,
        };
        let responses = match item {
            Item::Text(text) => vec![item::text(&text)],
            Item::Html(html) => vec![item::html_of_fetch(&html)],
            Item::Head(columns) => {
                if self.at.set == Set::Rows {
                    // The next page begins with this set.
                    self.end_set();
                    return Ok(Taken::Full);
                }
                vec![item::head(columns)]
            }
            Item::End(end) => match set {
                // Each end costs these clients another call, and they show nothing of it.
                Set::None => Vec::new(),
                Set::Head => vec![item::text(&item::no_rows(&[]))],
                Set::Rows => vec![item::end(end)],
            },
            // Never made of these records.
            Item::Rows(_) => Vec::new(),
        };
        if self.is_full(responses.iter().map(Response::encoded_len).sum()) {
            return Ok(Taken::Full);
        }
        for response in responses {
            item::check_response(&response)?;
            self.add(response);
        }
        self.at.set = after;
        Ok(if (set, after) == (Set::Rows, Set::None) { Taken::WithEnd } else { Taken::Whole })
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::published::response::Response as Sent;
    use sqlflow_proto::v1::{Column, Head, Message, Rows, Strings, column, message};

    use super::*;

    fn record(position: u64, response: Kind) -> v1::Response {
        v1::Response { position, response: Some(response), ..v1::Response::default() }
    }

    fn output(text: &str) -> Kind {
        Kind::Log(LogChunk { data: text.to_owned().into(), ..LogChunk::default() })
    }

    fn head() -> Kind {
        Kind::Head(Head { column_names: vec!["a".to_owned()], ..Head::default() })
    }

    fn rows(texts: &[&str]) -> Kind {
        let values = Some(column::Values::Strings(Strings::from_iter(texts.iter().copied())));
        let columns = vec![Column { values, ..Column::default() }];
        Kind::Rows(Rows { count: u32::try_from(texts.len()).unwrap(), columns }.into())
    }

    fn end() -> Kind {
        Kind::Eoe(v1::EndOfExecution::default())
    }

    fn shown(page: &Page) -> Vec<String> {
        let shown = |it: &Response| match it.response.clone().unwrap() {
            Sent::Message(message) => message.message,
            Sent::Head(_) => "HEAD".to_owned(),
            Sent::Row(_) => "ROW".to_owned(),
            Sent::Eoe(_) => "END".to_owned(),
            Sent::Job(_) => "JOB".to_owned(),
        };
        page.responses.iter().map(shown).collect()
    }

    /// Reads a log as a client does, and gives what its pages showed.
    fn read(log: &[v1::Response]) -> Vec<Vec<String>> {
        let (mut at, mut pages) = (Cursor::default(), Vec::new());
        loop {
            let records: Vec<_> = log.iter().filter(|it| it.position > at.after).cloned().collect();
            let page = page(records.clone(), at, Followed::ByNothing).unwrap();
            let again = super::page(records, at, Followed::ByNothing).unwrap();
            assert_eq!((page.next, shown(&page)), (again.next, shown(&again)), "a repeated call");
            let bytes: usize = page.responses.iter().map(|it| it.encoded_len() + OVERHEAD).sum();
            assert!(bytes < 4 << 20);
            pages.push(shown(&page));
            if page.is_whole {
                return pages;
            }
            assert_ne!(page.next, at, "no progress");
            at = page.next;
        }
    }

    fn log(kinds: impl IntoIterator<Item = Kind>) -> Vec<v1::Response> {
        (1..).zip(kinds).map(|(position, kind)| record(position, kind)).collect()
    }

    #[test]
    fn end_of_rows_is_the_last_of_its_page() {
        let over = Kind::Message(Message { kind: message::Kind::End.into(), ..Message::default() });
        let of = [
            head(),
            rows(&["1", "2"]),
            end(),
            end(),
            head(),
            end(),
            output("x\n"),
            head(),
            rows(&["3"]),
            end(),
            over,
        ];
        let expected: [&[&str]; 2] =
            [&["HEAD", "ROW", "ROW", "END"], &["HEAD", "the result has no rows", "x", "HEAD", "ROW", "END"]];
        assert_eq!(read(&log(of)), expected);
    }

    #[test]
    fn rows_without_an_end_or_a_head_are_shown() {
        let two_sets = log([head(), rows(&["1"]), head(), rows(&["2"])]);
        let expected: [&[&str]; 2] = [&["HEAD", "ROW", "END"], &["HEAD", "ROW", "END"]];
        assert_eq!(read(&two_sets), expected, "the statement failed");
        assert_eq!(read(&log([rows(&["1"]), end()])), [["HEAD", "ROW", "END"]]);
    }

    #[test]
    fn long_batches_are_split_between_rows() {
        let text = "x".repeat(300_000);
        let log = [record(1, head()), record(2, rows(&[text.as_str(); 20])), record(3, end())];
        let pages = read(&log);
        assert_eq!(pages.len(), 4);
        assert_eq!(pages.iter().flatten().filter(|it| *it == "ROW").count(), 20);
        assert_eq!(pages[3].last().unwrap(), "END");
        let alone = "x".repeat(5 << 20);
        let only = vec![record(2, rows(&[&alone]))];
        let error = page(only, Cursor { set: Set::Head, ..Cursor::default() }, Followed::Later).unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn long_output_is_split_between_lines() {
        let log = [record(1, output(&"line\n".repeat(500_000))), record(2, end())];
        let pages = read(&log);
        assert!(pages.len() > 3);
        let lines = pages.iter().flatten().filter(|it| *it == "line").count();
        assert_eq!(lines, 500_000);
    }

    #[test]
    fn unfinished_line_waits_for_its_end() {
        let from = Cursor::default();
        let first = || record(1, output("a\nb"));
        let of = page(vec![first()], from, Followed::Later).unwrap();
        let part = Some(Part { record: 1, count: 2 });
        assert_eq!((shown(&of), of.next), (vec!["a".to_owned()], Cursor { part, ..from }));
        let both = vec![first(), record(2, output("c\nd"))];
        assert_eq!(shown(&page(both, of.next, Followed::ByNothing).unwrap()), ["bc", "d"]);
        let other = page(vec![record(2, output("cd\n"))], of.next, Followed::ByNothing).unwrap();
        assert_eq!(shown(&other), ["cd"], "the record of which a part was returned is gone");
        // What completes it may be too long for the same page.
        let of = page(vec![first()], from, Followed::ByMore).unwrap();
        assert_eq!((shown(&of), of.next.after), (vec!["a".to_owned(), "b".to_owned()], 1));
    }
}
