//! The last lines of a log, read from its end.
//!
//! Lines are only some of the records; rows, progress and measurements are between them. So windows of records are
//! read backwards until there are enough lines. Bounds, for a log of any length: [`READ_BYTES`] and a page are read,
//! twice [`KEPT_BYTES`] and a page are in memory.

use std::collections::VecDeque;

use sqlflow_job::JobId;
use sqlflow_proto::record::{StoredRecord, record::Payload};
use sqlflow_result_log::{LogError, ResultLog};

use super::log_text::{Lines, LogText, Piece};

/// Number of lines that a page starts with.
pub(super) const SHOWN_LINES: usize = 500;
/// Maximum bytes of a line.
const LINE_BYTES: usize = 4000;
/// Records of the first window.
const FIRST_RECORDS: u64 = 32;
/// Target size of a window, estimated from the records so far.
const WINDOW_BYTES: usize = 4 << 20;
/// Bytes that are read at once, and in total.
const PAGE_BYTES: usize = 512 << 10;
const READ_BYTES: usize = 64 << 20;
/// Maximum bytes of output in memory during the search.
const KEPT_BYTES: usize = 4 << 20;

/// The end of a log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) lines: Vec<Piece>,
    /// Position after which live updates continue.
    pub(super) next: u64,
    /// There are, or may be, earlier lines.
    pub(super) is_cut: bool,
}

/// The log's current last lines.
///
/// # Errors
/// Errors of the log.
pub(super) async fn tail(log: &dyn ResultLog, job: &JobId) -> Result<Tail, LogError> {
    let next = log.last_position(job).await?;
    let mut kept = Kept::default();
    // Records from `upper` on have been read.
    let (mut upper, mut read, mut records, mut budget) = (next, 0_u64, FIRST_RECORDS, READ_BYTES);
    let mut is_cut = false;
    while upper > 0 {
        if kept.lines > SHOWN_LINES || kept.bytes >= KEPT_BYTES || budget == 0 {
            is_cut = true;
            break;
        }
        let begin = log.tail(job, read.saturating_add(records)).await?;
        // The window is empty if the log has grown, or retention has removed records.
        let limit = if records > 1 { budget / 2 } else { usize::MAX };
        let window = Window::read(log, job, (begin, upper), limit).await?;
        budget = budget.saturating_sub(window.bytes);
        if !window.is_whole {
            records = (records / 4).max(1);
            continue;
        }
        let average = window.bytes / usize::try_from(records).unwrap_or(usize::MAX) + 1;
        read = read.saturating_add(records);
        records = records.saturating_mul(4).min((WINDOW_BYTES / average) as u64).max(1);
        upper = upper.min(begin);
        is_cut |= window.kept.is_cut;
        kept.prepend(window.kept);
    }
    let mut text = LogText::default();
    let pieces = kept.records.iter().filter_map(|it| text.take(it));
    let (mut lines, surplus) = Lines::last_of(SHOWN_LINES, pieces);
    lines.iter_mut().for_each(|line| shorten(&mut line.text));
    Ok(Tail { lines, next, is_cut: is_cut || surplus > 0 })
}

fn shorten(line: &mut String) {
    if line.len() > LINE_BYTES {
        line.truncate(line.floor_char_boundary(LINE_BYTES));
        line.push_str(" …\n");
    }
}

/// Records with text, in order.
#[derive(Default)]
struct Kept {
    records: VecDeque<StoredRecord>,
    bytes: usize,
    lines: usize,
    /// The first ones were dropped: they are over the limit.
    is_cut: bool,
}

/// Bytes and line ends of a record with text.
fn measure(stored: &StoredRecord) -> Option<(usize, usize)> {
    match stored.record.as_ref()?.payload.as_ref()? {
        Payload::Output(output) => {
            Some((output.data.len() + 64, output.data.iter().filter(|byte| **byte == b'\n').count()))
        }
        Payload::Notice(notice) => Some((notice.text.len() + 64, 1)),
        Payload::Gap(_) => Some((64, 1)),
        _ => None,
    }
}

impl Kept {
    fn push(&mut self, stored: StoredRecord) {
        let Some((bytes, lines)) = measure(&stored) else { return };
        self.bytes += bytes;
        self.lines += lines;
        self.records.push_back(stored);
        while self.bytes > KEPT_BYTES
            && self.records.len() > 1
            && let Some((bytes, lines)) = self.records.pop_front().as_ref().and_then(measure)
        {
            (self.bytes, self.lines, self.is_cut) = (self.bytes - bytes, self.lines - lines, true);
        }
    }

    fn prepend(&mut self, mut older: Self) {
        older.records.append(&mut self.records);
        (self.records, self.bytes, self.lines) =
            (older.records, self.bytes + older.bytes, self.lines + older.lines);
    }
}

/// Number of records between two positions.
#[derive(Default)]
struct Window {
    kept: Kept,
    bytes: usize,
    is_whole: bool,
}

impl Window {
    async fn read(
        log: &dyn ResultLog,
        job: &JobId,
        (begin, end): (u64, u64),
        limit: usize,
    ) -> Result<Self, LogError> {
        let (mut window, mut after) = (Self::default(), begin);
        while after < end {
            if window.bytes > limit {
                return Ok(window);
            }
            let page = log.read(job, after, PAGE_BYTES).await?;
            let Some(last) = page.records.last() else { break };
            after = last.position;
            for stored in page.records.into_iter().take_while(|it| it.position <= end) {
                window.bytes += prost::Message::encoded_len(&stored);
                window.kept.push(stored);
            }
        }
        window.is_whole = true;
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, Record, output::Stream};
    use sqlflow_proto::v1::{Display, Progress};
    use sqlflow_result_log::{Entry, Producer, SegmentLog};

    use super::*;
    use crate::fixture;

    fn entry(payload: Payload) -> Entry {
        Entry {
            producer: Producer::server(0),
            record: Record { payload: Some(payload), ..Record::default() },
        }
    }

    fn output(text: &[u8]) -> Payload {
        let data = text.to_vec().into();
        Payload::Output(Output { stream: Stream::Stdout.into(), offset: 0, data })
    }

    fn progress(done: u64) -> Payload {
        Payload::Progress(Progress { phase: "train".into(), done, ..Progress::default() })
    }

    fn picture(bytes: usize) -> Payload {
        Payload::Display(Display { media_type: "image/png".into(), data: vec![0; bytes].into() })
    }

    struct World {
        log: SegmentLog,
        job: JobId,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { log: fixture::log(&dir.path().join("log")), job: JobId::generate(), _dir: dir }
        }

        async fn say(&self, payloads: impl IntoIterator<Item = Payload>) {
            self.log.append(&self.job, payloads.into_iter().map(entry).collect()).await.unwrap();
        }

        async fn tail(&self) -> Tail {
            tail(&self.log, &self.job).await.unwrap()
        }
    }

    fn texts(tail: &Tail) -> Vec<&str> {
        tail.lines.iter().map(|it| it.text.trim_end()).collect()
    }

    #[tokio::test]
    async fn tail_of_a_short_log_is_the_whole_log() {
        let world = World::new();
        assert!(world.tail().await.lines.is_empty());
        // A character and a line are split between records.
        world.say([output(b"one\ntw"), progress(1), output(b"o \xc3"), output(b"\xa9\n")]).await;
        let tail = world.tail().await;
        assert_eq!((texts(&tail), tail.next, tail.is_cut), (vec!["one", "two é"], 4, false));
    }

    /// 64 records of progress once hid all lines of a page.
    #[tokio::test]
    async fn last_lines_are_found_before_progress_and_pictures() {
        let world = World::new();
        for line in 0..600 {
            world.say([output(format!("line {line}\n").as_bytes()), progress(line)]).await;
        }
        world.say((0..20).map(|_| picture(1 << 20))).await;
        world.say((0..3000).map(progress)).await;
        let tail = world.tail().await;
        let expected: Vec<_> = (100..600).map(|it| format!("line {it}")).collect();
        assert_eq!(texts(&tail), expected);
        assert!(tail.is_cut);
    }

    #[tokio::test]
    async fn reads_and_memory_are_bounded() {
        let world = World::new();
        world.say([output(b"too far away\n")]).await;
        for _ in 0..10 {
            world.say((0..10).map(|_| picture(1 << 20))).await;
        }
        world.say([output(b"near\n")]).await;
        let tail = world.tail().await;
        assert_eq!((texts(&tail), tail.is_cut), (vec!["near"], true));
        // One line that is longer than the limit.
        world.say((0..200).map(|_| output(&[b'x'; 60_000]))).await;
        let tail = world.tail().await;
        assert_eq!((tail.lines.len(), tail.lines[0].text.len(), tail.is_cut), (1, LINE_BYTES + 5, true));
    }
}
