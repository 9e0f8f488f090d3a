//! The order of responses of Run. The published clients read them in groups of one kind, and remember the response that ended
//! the last group. They lose the first response after a single text, after HTML and after rows, show the remembered one again
//! at the end of the stream if that ends in a group of one text, and fail on a result set without rows that does not end the
//! stream. So each group ends with an end of execution, which they ignore, and has at least two responses before it.

use sqlflow_proto::published::EndOfExecution;

use super::item::{Item, no_rows, unnamed};

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
    /// Texts of the group that is open.
    texts: usize,
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
                let columns = || unnamed(rows.columns.len());
                let set = self.set.get_or_insert_with(|| Set { columns: columns(), has_rows: false });
                let is_first = !std::mem::replace(&mut set.has_rows, true);
                let columns = is_first.then(|| set.columns.clone());
                if let Some(columns) = columns {
                    self.settle_empty(&mut out);
                    self.end_texts(&mut out);
                    out.push(Item::Head(columns));
                }
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
        self.end_texts(&mut out);
        // Nothing follows, so the table can be shown.
        out.extend(self.empty.take().map(Item::Head));
        out
    }

    /// The end of a statement.
    fn end(&mut self, end: EndOfExecution, out: &mut Vec<Item>) {
        let set = self.set.take();
        self.settle_empty(out);
        self.fill_texts(out);
        out.push(Item::End(end));
        self.empty = set.filter(|set| !set.has_rows).map(|set| set.columns);
        self.release(out);
    }

    /// Ends a result set that its statement did not end. One without rows is forgotten: a retried statement begins it again.
    fn close(&mut self, out: &mut Vec<Item>) {
        if self.set.take().is_some_and(|set| set.has_rows) {
            out.push(separator());
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
            self.end_texts(out);
            // Becomes a part of the HTML.
            out.extend([item, Item::Text(String::new()), separator()]);
        } else {
            out.push(item);
            self.texts += 1;
        }
    }

    /// Says that a result set had no rows, since something follows it.
    fn settle_empty(&mut self, out: &mut Vec<Item>) {
        if let Some(columns) = self.empty.take() {
            out.push(Item::Text(no_rows(&columns)));
            self.texts += 1;
        }
    }

    /// Ends the group of texts.
    fn end_texts(&mut self, out: &mut Vec<Item>) {
        if self.texts > 0 {
            self.fill_texts(out);
            out.push(separator());
        }
    }

    /// Makes the group of texts long enough for its end.
    fn fill_texts(&mut self, out: &mut Vec<Item>) {
        if std::mem::take(&mut self.texts) == 1 {
            out.push(Item::Text(String::new()));
        }
    }
}

fn separator() -> Item {
    Item::End(EndOfExecution::default())
}

#[cfg(test)]
mod tests {
    use std::iter::Peekable;

    use sqlflow_proto::v1::EncodedRows;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Shown {
        Log(String),
        Html(String),
        Table(Vec<String>, u32),
    }

    /// What the published clients show. A model of `Client.display`, with its mistakes.
    struct Client<I: Iterator<Item = Item>> {
        stream: Peekable<I>,
        /// The response that ended the last group. It is never forgotten.
        last: Option<Item>,
        shown: Vec<Shown>,
    }

    fn kind(item: &Item) -> u8 {
        match item {
            Item::Text(_) | Item::Html(_) => 0,
            Item::Head(_) => 1,
            Item::Rows(_) => 2,
            Item::End(_) => 3,
        }
    }

    fn message(item: &Item) -> String {
        match item {
            Item::Text(text) | Item::Html(text) => text.clone(),
            Item::Head(_) | Item::Rows(_) | Item::End(_) => String::new(),
        }
    }

    impl<I: Iterator<Item = Item>> Client<I> {
        fn until_kind_changes(&mut self) -> Vec<Item> {
            let mut group: Vec<Item> = Vec::new();
            for item in self.stream.by_ref() {
                if group.first().is_some_and(|first| kind(first) != kind(&item)) {
                    self.last = Some(item);
                    break;
                }
                group.push(item);
            }
            group
        }

        fn display(mut self) -> Vec<Shown> {
            let mut response = self.stream.next();
            for _ in 0..1000 {
                let Some(item) = response else { return self.shown };
                match &item {
                    Item::Html(html) => {
                        let rest: String = self.until_kind_changes().iter().map(message).collect();
                        self.shown.push(Shown::Html(format!("{html}{rest}")));
                    }
                    Item::Text(text) => {
                        self.shown.push(Shown::Log(text.clone()));
                        let rest = self.until_kind_changes();
                        self.shown.extend(rest.iter().map(|it| Shown::Log(message(it))));
                        response = self.last.clone();
                        continue;
                    }
                    Item::Head(_) | Item::Rows(_) => {
                        let columns =
                            if let Item::Head(columns) = &item { columns.clone() } else { Vec::new() };
                        let rows = self.until_kind_changes();
                        let is_table = rows.iter().all(|it| matches!(it, Item::Rows(_)));
                        assert!(is_table && !columns.is_empty(), "ValueError: {columns:?} {rows:?}");
                        let count =
                            rows.iter().map(|it| if let Item::Rows(rows) = it { rows.count } else { 0 });
                        self.shown.push(Shown::Table(columns, count.sum()));
                    }
                    Item::End(_) => {}
                }
                response = self.stream.next();
            }
            panic!("it never ends: {:?}", self.shown);
        }
    }

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

    /// What the client shows of these items, without empty lines.
    fn shown(items: &[Item]) -> Vec<Shown> {
        let mut stream = Stream::default();
        let mut out: Vec<_> = items.iter().cloned().flat_map(|item| stream.push(item)).collect();
        out.extend(stream.finish());
        let client = Client { stream: out.into_iter().peekable(), last: None, shown: Vec::new() };
        client.display().into_iter().filter(|it| *it != Shown::Log(String::new())).collect()
    }

    fn log(text: &str) -> Shown {
        Shown::Log(text.to_owned())
    }

    fn table(rows: u32) -> Shown {
        Shown::Table(vec!["a".to_owned(), "b".to_owned()], rows)
    }

    const EMPTY: &str = "the result has no rows; its columns: a, b";

    #[test]
    fn output_among_rows_follows_them() {
        let of = shown(&[head(), rows(), text("among"), rows(), end(), head(), rows(), end()]);
        assert_eq!(of, [table(2), log("among"), table(1)]);
        assert_eq!(shown(&[head(), rows(), head(), rows(), end()]), [table(1), table(1)]);
        assert_eq!(shown(&[head(), rows()]), [table(1)], "the statement failed");
        assert_eq!(shown(&[head(), head(), rows(), end()]), [table(1)], "the statement was retried");
    }

    #[test]
    fn empty_result_is_a_table_at_the_end_and_else_a_text() {
        assert_eq!(shown(&[head(), end()]), [table(0)]);
        assert_eq!(shown(&[head(), end(), head(), rows(), end()]), [log(EMPTY), table(1)]);
        assert_eq!(shown(&[head(), end(), head(), end()]), [log(EMPTY), table(0)]);
        assert_eq!(shown(&[head(), text("among"), end()]), [log(EMPTY), log("among")]);
    }

    /// Every program of up to four statements of these kinds: all of it is shown, once and in order.
    #[test]
    fn everything_is_shown_once_in_every_order() {
        let html = Shown::Html("<p>".to_owned());
        let statements: [(Vec<Item>, Vec<Shown>); 8] = [
            (vec![end()], vec![]),
            (vec![text("a"), end()], vec![log("a")]),
            (vec![text("b")], vec![log("b")]),
            (vec![text("c"), text("d"), end()], vec![log("c"), log("d")]),
            (vec![self::html(), end()], vec![html.clone()]),
            (vec![text("e"), self::html()], vec![log("e"), html]),
            (vec![head(), rows(), rows(), end()], vec![table(2)]),
            (vec![head(), end()], vec![log(EMPTY)]),
        ];
        let count = statements.len();
        for program in 0..count.pow(4) {
            let chosen = (0..4).map(|place| &statements[program / count.pow(place) % count]);
            let (items, expected): (Vec<Vec<Item>>, Vec<Vec<Shown>>) = chosen.cloned().unzip();
            let (items, mut expected) = (items.concat(), expected.concat());
            // The end of a further statement would be an error for the client.
            if let Some(last) = expected.last_mut().filter(|it| **it == log(EMPTY))
                && items.ends_with(&[head(), end()])
            {
                *last = table(0);
            }
            assert_eq!(shown(&items), expected, "{items:?}");
        }
    }

    #[test]
    fn output_among_rows_is_bounded() {
        let mut stream = Stream::default();
        for item in [head(), rows()] {
            stream.push(item);
        }
        for _ in 0..100 {
            stream.push(Item::Text("x".repeat(MAX_HELD / 10)));
            assert!(stream.held.len() <= 10);
        }
        let out = stream.push(end());
        assert!(matches!(out.last(), Some(Item::Text(text)) if text.contains("job's page")), "{}", out.len());
    }
}
