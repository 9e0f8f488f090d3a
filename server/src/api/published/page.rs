//! A page of Fetch. The published clients show rows only at an end of execution, and lose what follows it in the same
//! page: so it is the last response of its page.

use prost::Message as _;
use sqlflow_proto::published::Response;
use sqlflow_proto::v1::{self, EncodedRows, LogChunk, response::Response as Kind};
use sqlflow_text::cell::Batch;
use tonic::Status;

use super::cursor::{Cursor, Set};
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
    /// Everything of the records that it was made of is in this page or an earlier one.
    pub(super) is_whole: bool,
}

/// The page that begins at `from`, of the records after `from.after`. `may_grow`: more may follow them.
///
/// # Errors
/// RESOURCE_EXHAUSTED: a row is longer than these clients can receive. DATA_LOSS: rows are damaged.
pub(super) fn page(records: Vec<v1::Response>, from: Cursor, may_grow: bool) -> Result<Page, Status> {
    let mut making = Making { responses: Vec::new(), bytes: 0, lines: Lines::default(), at: from };
    let count = records.len();
    for (index, record) in records.into_iter().enumerate() {
        let is_last = index + 1 == count;
        let is_end = matches!(record.response, Some(Kind::Eoe(_)));
        let taken = match record.response {
            Some(Kind::Log(chunk)) => making.take_output(&chunk, is_last && may_grow),
            Some(Kind::Rows(rows)) => making.take_rows(&rows)?,
            Some(other) => making.take(other)?,
            None => Taken::Whole,
        };
        match taken {
            Taken::Whole => making.at = Cursor { after: record.position, skip: 0, set: making.at.set },
            Taken::Full => return Ok(making.page(false)),
            Taken::ButLine => return Ok(making.page(true)),
        }
        if is_end {
            return Ok(making.page(is_last));
        }
    }
    Ok(making.page(true))
}

/// What of a record is in the page.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// All of it.
    Whole,
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

    fn take_output(&mut self, chunk: &LogChunk, may_grow: bool) -> Taken {
        let skip = usize::try_from(self.at.skip).unwrap_or(usize::MAX).min(chunk.data.len());
        let mut offset = skip;
        let mut line_start = None;
        for piece in chunk.data[skip..].split_inclusive(|byte| *byte == b'\n') {
            if self.is_full(0) {
                self.at.skip = offset as u64;
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
                self.at.skip = start as u64;
                Taken::ButLine
            }
            Some(_) | None => Taken::Whole,
        }
    }

    fn take_rows(&mut self, rows: &EncodedRows) -> Result<Taken, Status> {
        let damaged = |error: &dyn std::fmt::Display| Status::data_loss(format!("cannot read rows: {error}"));
        let rows = rows.decoded().map_err(|error| damaged(&error))?;
        let batch = Batch::new(&rows).map_err(|error| damaged(&error))?;
        let skip = usize::try_from(self.at.skip).unwrap_or(usize::MAX);
        for index in skip..batch.row_count() {
            let response = row::response(&batch, index);
            if self.is_full(response.encoded_len()) {
                self.at.skip = index as u64;
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
        let (responses, set) = match item {
            Item::Text(text) => (vec![item::text(&text)], set),
            Item::Html(html) => (vec![item::html_of_fetch(&html)], set),
            Item::Head(columns) => (vec![item::head(columns)], Set::Head),
            // Never made of these records.
            Item::Rows(_) => (Vec::new(), set),
            Item::End(end) => {
                let empty = (set == Set::Head).then(|| item::text(&item::no_rows(&[])));
                (empty.into_iter().chain([item::end(end)]).collect(), Set::None)
            }
        };
        if self.is_full(responses.iter().map(Response::encoded_len).sum()) {
            return Ok(Taken::Full);
        }
        for response in responses {
            item::check_response(&response)?;
            self.add(response);
        }
        self.at.set = set;
        Ok(Taken::Whole)
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::published::response::Response as Sent;
    use sqlflow_proto::v1::{Column, EndOfExecution, Head, Rows, Strings, column};

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
        Kind::Eoe(EndOfExecution::default())
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
            let page = page(records.clone(), at, false).unwrap();
            let again = super::page(records, at, false).unwrap();
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

    #[test]
    fn end_of_execution_is_the_last_of_its_page() {
        let kinds = [head(), rows(&["1", "2"]), end(), head(), end(), output("x\n")];
        let log: Vec<_> = (1..).zip(kinds).map(|(position, kind)| record(position, kind)).collect();
        let expected: [&[&str]; 3] =
            [&["HEAD", "ROW", "ROW", "END"], &["HEAD", "the result has no rows", "END"], &["x"]];
        assert_eq!(read(&log), expected);
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
        let error = page(vec![record(2, rows(&[&alone]))], Cursor::default(), false).unwrap_err();
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
        let of = page(vec![record(1, output("a\nb"))], from, true).unwrap();
        assert_eq!(
            (shown(&of), of.next),
            (vec!["a".to_owned()], Cursor { after: 0, skip: 2, set: Set::None })
        );
        let of = page(vec![record(1, output("a\nb")), record(2, output("c\nd"))], of.next, false).unwrap();
        assert_eq!(shown(&of), ["bc", "d"]);
    }
}
