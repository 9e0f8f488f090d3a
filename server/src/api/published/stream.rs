//! The order of responses of Run. The published clients read them in groups of one kind, and some ends of a group they
//! lose: the response after rows and after HTML is swallowed, HTML among texts is shown as text, and the end of a result
//! set without rows is an error unless it ends the stream. An additional end of execution, which they ignore, keeps the
//! groups apart.

use sqlflow_proto::published::EndOfExecution;

use super::item::{Item, no_rows};

/// Maximum bytes of texts and HTML that are kept until the rows among which they came are over.
const MAX_HELD: usize = 1024 * 1024;

/// The state of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The result set that has begun.
    set: Option<Set>,
    /// What came among its rows.
    held: Vec<Item>,
    held_bytes: usize,
    is_held_cut: bool,
    /// Columns of a result set without rows that may be the last one.
    empty: Option<Vec<String>>,
    /// The last thing sent was a text.
    after_text: bool,
}

#[derive(Debug)]
struct Set {
    columns: Vec<String>,
    has_rows: bool,
}

impl Stream {
    /// What to send for this item.
    pub(super) fn push(&mut self, item: Item) -> Vec<Item> {
        let mut out = Vec::new();
        match item {
            Item::Text(_) | Item::Html(_) if self.set.is_some() => self.hold(item),
            Item::Text(_) | Item::Html(_) => self.send(item, &mut out),
            Item::Head(columns) => {
                self.close(&mut out);
                self.set = Some(Set { columns, has_rows: false });
            }
            Item::Rows(rows) if rows.count == 0 => {}
            Item::Rows(rows) => {
                let unnamed = || (1..=rows.columns.len()).map(|number| number.to_string()).collect();
                let set = self.set.get_or_insert_with(|| Set { columns: unnamed(), has_rows: false });
                let is_first = !std::mem::replace(&mut set.has_rows, true);
                let columns = is_first.then(|| set.columns.clone());
                if let Some(columns) = columns {
                    self.settle_empty(&mut out);
                    out.push(Item::Head(columns));
                }
                self.after_text = false;
                out.push(Item::Rows(rows));
            }
            Item::End(end) => self.end(end, &mut out),
        }
        out
    }

    /// What to send at the end of the stream.
    pub(super) fn finish(&mut self) -> Vec<Item> {
        let mut out = Vec::new();
        self.close(&mut out);
        // Nothing follows, so the table can be shown.
        out.extend(self.empty.take().map(Item::Head));
        out
    }

    /// The end of a statement.
    fn end(&mut self, end: EndOfExecution, out: &mut Vec<Item>) {
        let set = self.set.take();
        self.settle_empty(out);
        out.push(Item::End(end));
        self.after_text = false;
        self.empty = set.filter(|set| !set.has_rows).map(|set| set.columns);
        self.release(out);
    }

    /// Ends a result set that its statement did not end.
    fn close(&mut self, out: &mut Vec<Item>) {
        match self.set.take() {
            Some(set) if set.has_rows => self.separate(out),
            Some(set) => {
                self.settle_empty(out);
                self.empty = Some(set.columns);
            }
            None => {}
        }
        self.release(out);
    }

    fn hold(&mut self, item: Item) {
        let bytes = match &item {
            Item::Text(text) | Item::Html(text) => text.len(),
            Item::Head(_) | Item::Rows(_) | Item::End(_) => 0,
        };
        if self.held_bytes + bytes > MAX_HELD {
            self.is_held_cut = true;
            return;
        }
        self.held_bytes += bytes;
        self.held.push(item);
    }

    fn release(&mut self, out: &mut Vec<Item>) {
        self.held_bytes = 0;
        for item in std::mem::take(&mut self.held) {
            self.send(item, out);
        }
        if std::mem::take(&mut self.is_held_cut) {
            let text = "[more output came among the rows; it is on the job's page]".to_owned();
            self.send(Item::Text(text), out);
        }
    }

    /// A text or HTML.
    fn send(&mut self, item: Item, out: &mut Vec<Item>) {
        self.settle_empty(out);
        if let Item::Html(_) = item {
            if self.after_text {
                self.separate(out);
            }
            out.push(item);
            self.separate(out);
        } else {
            out.push(item);
            self.after_text = true;
        }
    }

    /// Says that a result set had no rows, since something follows it.
    fn settle_empty(&mut self, out: &mut Vec<Item>) {
        if let Some(columns) = self.empty.take() {
            out.push(Item::Text(no_rows(&columns)));
            self.after_text = true;
        }
    }

    fn separate(&mut self, out: &mut Vec<Item>) {
        out.push(Item::End(EndOfExecution::default()));
        self.after_text = false;
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::EncodedRows;

    use super::*;

    fn text(text: &str) -> Item {
        Item::Text(text.to_owned())
    }

    fn html() -> Item {
        Item::Html("<p>".to_owned())
    }

    fn head() -> Item {
        Item::Head(vec!["a".to_owned(), "b".to_owned()])
    }

    fn rows() -> Item {
        Item::Rows(EncodedRows { count: 1, columns: Vec::new() })
    }

    fn end() -> Item {
        Item::End(EndOfExecution { sql: "SELECT".to_owned(), spent_time_seconds: 0 })
    }

    fn filler() -> Item {
        Item::End(EndOfExecution::default())
    }

    fn sent(items: Vec<Item>) -> Vec<Item> {
        let mut stream = Stream::default();
        let mut out: Vec<_> = items.into_iter().flat_map(|item| stream.push(item)).collect();
        out.extend(stream.finish());
        out
    }

    #[test]
    fn rows_are_followed_by_an_end_and_then_by_what_came_among_them() {
        let of = sent(vec![head(), rows(), text("among"), rows(), end(), head(), rows(), end()]);
        assert_eq!(of, [head(), rows(), rows(), end(), text("among"), head(), rows(), end()]);
        let two_sets = sent(vec![head(), rows(), head(), rows(), end()]);
        assert_eq!(two_sets, [head(), rows(), filler(), head(), rows(), end()]);
        assert_eq!(sent(vec![head(), rows()]), [head(), rows(), filler()], "the statement failed");
    }

    #[test]
    fn empty_result_is_a_table_at_the_end_and_else_a_text() {
        assert_eq!(sent(vec![head(), end()]), [end(), head()]);
        let empty = text("the result has no rows; its columns: a, b");
        let of = sent(vec![head(), end(), head(), rows(), end()]);
        assert_eq!(of, [end(), empty.clone(), head(), rows(), end()]);
        assert_eq!(sent(vec![head(), end(), head(), end()]), [end(), empty.clone(), end(), head()]);
        assert_eq!(sent(vec![head(), text("among"), end()]), [end(), empty, text("among")]);
    }

    #[test]
    fn html_is_a_group_of_its_own() {
        let of = sent(vec![text("a"), html(), text("b"), html(), html()]);
        let expected =
            [text("a"), filler(), html(), filler(), text("b"), filler(), html(), filler(), html(), filler()];
        assert_eq!(of, expected);
    }

    #[test]
    fn output_among_rows_is_bounded() {
        let mut stream = Stream::default();
        for item in [head(), rows()] {
            stream.push(item);
        }
        let held = |stream: &Stream| stream.held.len();
        for _ in 0..100 {
            stream.push(Item::Text("x".repeat(MAX_HELD / 10)));
            assert!(held(&stream) <= 10);
        }
        let out = stream.push(end());
        assert!(matches!(out.last(), Some(Item::Text(text)) if text.contains("job's page")), "{}", out.len());
    }
}
