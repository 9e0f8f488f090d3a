//! Delivery of pages that were read with a plain token: when a page counts as delivered.
//!
//! A plain token has no cursor, so the server must decide whether its last response was received. It may repeat a
//! page, but must never skip one. Writing a response to a connection proves nothing: a slow link may still carry it
//! when the client's deadline has passed. The client's next action is the proof.
//!
//! # Assumptions
//! 1. *One reader*: a plain token is read by one client, which calls again only when its call before has ended.
//! 2. *Abandoned calls are reset*: a client that gives up a call resets its stream (RST_STREAM), and the reset
//!    arrives at most [`RESET_LAG`] after whatever the client sends next on that connection. Client libraries send
//!    resets and requests from different tasks, so the order of the two is not certain. A proxy that takes a whole
//!    answer before its client has it breaks this; behind such a proxy calls must be given up by `grpc-timeout`, or
//!    read with cursors. Only cursors serve a reader that is killed behind such a proxy and restarted: the proxy has
//!    taken the page, and its connection goes on.
//! 3. *Delays vary by less than half a deadline*: if the client's next sign arrives within half of `grpc-timeout`
//!    after the call arrived, the client's own deadline had not passed when it sent the sign.
//!
//! # Rules
//! A page is delivered when all of these hold:
//! - its response was handed to its connection whole,
//! - no other plain Fetch of the job was being served at the same time,
//! - the client has reset no stream of that connection since the call arrived, nor within [`RESET_LAG`] of the sign,
//! - then there is a *sign* on the same connection: the job's next plain Fetch, or an end in good order (GOAWAY, then
//!   the end of the stream) of a client that gave a receipt before: it acknowledged a PING that followed the page. A
//!   client may say GOAWAY and close while a page is on its way to it, and need not reset the call first,
//! - and if the call had a deadline, the client's next Fetch of the job (on any connection), or that end, came within
//!   half of it.
//!
//! A Fetch on another connection is no sign: with requests balanced over several connections each of them proves its
//! own pages, and reading goes on more slowly. Passing time is no sign, and neither is a connection that just ends:
//! a killed client looks the same. A client whose deadline is too short for its link gets the same page again, as
//! does one that pauses between calls for longer than half its deadline. Cursors (`next`) have none of these limits.
//!
//! What is kept here is only a hint: when it is lost with the server, the next Fetch repeats the page.

mod connection;
mod frames;
#[cfg(test)]
mod tests;
mod unsaved_cursor;
mod write_completion;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) use connection::{Connection, TrackedStream};
use connection::{End, Seen};
use sqlflow_job::JobId;
use unsaved_cursor::UnsavedCursor;
pub(super) use write_completion::{WriteCompletion, watched};

use sqlflow_sync::lock;

/// Maximum number of jobs with plain tokens that are tracked. Pages of further ones are repeated.
const MAX_JOBS: usize = 10_000;
/// Number of tracked jobs from which finished ones are evicted.
const SPARE_JOBS: usize = 256;
/// Pages of one job, each on its own connection.
const MAX_PAGES_PER_JOB: usize = 8;

/// Time in which the reset of an abandoned call may follow the next call. A plain Fetch waits this long before it
/// counts as the proof of the previous page.
pub(super) const RESET_LAG: Duration = Duration::from_millis(50);

/// Facts about a page when the server decides whether it was delivered.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// The response was written to its connection completely.
    written: bool,
    /// The client reset a stream of the connection since the call arrived.
    was_reset: bool,
    /// `grpc-timeout` of the call.
    time_limit: Option<Duration>,
    sign: Sign,
    /// Time from the arrival of the call until the client's next Fetch of the job, or until the connection's end.
    after: Duration,
}

/// The sign on the page's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// No sign yet.
    None,
    /// The job's next plain Fetch.
    NextFetch,
    /// A clean end, after the receipt of the page.
    GoodEnd,
    /// Another end, or a clean end of a client that may not have received the page.
    BadEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Delivered,
    /// It may be proved later.
    Open,
    /// It cannot be proved any more; the page is repeated.
    Unproved,
}

/// Applies the rules above.
fn judge(facts: &Facts) -> Verdict {
    let in_time = facts.time_limit.is_none_or(|limit| facts.after < limit / 2);
    match facts.sign {
        Sign::BadEnd => Verdict::Unproved,
        _ if facts.was_reset => Verdict::Unproved,
        Sign::None => Verdict::Open,
        Sign::NextFetch | Sign::GoodEnd if facts.written && in_time => Verdict::Delivered,
        Sign::NextFetch | Sign::GoodEnd => Verdict::Unproved,
    }
}

/// A Fetch call, as far as delivery depends on it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Its connection.
    pub(super) connection: Arc<Connection>,
    /// Arrival time.
    pub(super) arrived: Instant,
    /// Its `grpc-timeout`.
    pub(super) time_limit: Option<Duration>,
}

impl Call {
    /// A call that arrives now. `timeout` is its header `grpc-timeout`.
    pub(super) fn new(connection: Arc<Connection>, timeout: Option<&str>) -> Self {
        // An unreadable deadline proves nothing.
        let time_limit = timeout.map(|it| parse_timeout(it).unwrap_or(Duration::ZERO));
        Self { connection, arrived: Instant::now(), time_limit }
    }
}

/// Time that a call waits for something: at most this long, and half of its own time limit.
pub(super) fn waiting_time(time_limit: Option<Duration>, most: Duration) -> Duration {
    time_limit.map_or(most, |limit| most.min(limit / 2))
}

/// Parses `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(value: &str) -> Option<Duration> {
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Pages sent to plain tokens whose delivery is not known yet.
#[derive(Default)]
pub(super) struct Deliveries {
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    of: HashMap<JobId, Reader>,
    /// Number of entries after the last eviction.
    left: usize,
}

impl Readers {
    /// Makes room for one more. Most clients do not return after the end of a log; one that does gets a page again.
    fn make_room(&mut self) {
        if self.of.len() >= self.left + SPARE_JOBS {
            self.of.retain(|_, reader| reader.serving > 0 || !reader.is_over);
            self.left = self.of.len();
        }
        if self.of.len() >= MAX_JOBS {
            self.of.retain(|_, reader| reader.serving > 0);
            self.left = self.of.len();
        }
    }
}

/// Reader of a job with its plain token.
#[derive(Default)]
struct Reader {
    /// Fetches in progress.
    serving: usize,
    /// Number of Fetches so far.
    calls: u64,
    pages: Vec<SentPage>,
    /// The log's end was sent to this reader.
    is_over: bool,
    unsaved_cursor: UnsavedCursor,
    /// Its cursor is being written to the store.
    is_recording: Arc<AtomicBool>,
}

struct SentPage {
    from: u64,
    to: u64,
    call: Call,
    seen_before: Seen,
    sent: WriteCompletion,
    /// Arrival of the client's next Fetch of the job.
    followed: Option<Instant>,
}

impl SentPage {
    fn facts(&self, next: &Call) -> Facts {
        let seen = self.call.connection.seen();
        let receipt = self.sent.receipt();
        let sign = match seen.end {
            Some((End::Good, _)) if receipt.is_some_and(|it| it <= seen.received) => Sign::GoodEnd,
            Some((End::Good | End::Bad, _)) => Sign::BadEnd,
            None if Arc::ptr_eq(&self.call.connection, &next.connection) => Sign::NextFetch,
            None => Sign::None,
        };
        let ended = seen.end.map(|(_, at)| at);
        let first = [self.followed, ended].into_iter().flatten().min().unwrap_or(next.arrived);
        Facts {
            written: receipt.is_some(),
            was_reset: seen.resets > self.seen_before.resets,
            time_limit: self.call.time_limit,
            sign,
            after: first.saturating_duration_since(self.call.arrived),
        }
    }
}

impl Deliveries {
    /// Begins a plain Fetch of the job, which ends when the result is dropped.
    pub(super) fn begin<'a>(&'a self, job: &JobId, call: Call) -> Reading<'a> {
        let mut readers = self.lock();
        if !readers.of.contains_key(job) {
            readers.make_room();
        }
        let reader = readers.of.entry(job.clone()).or_default();
        for page in &mut reader.pages {
            page.followed.get_or_insert(call.arrived);
        }
        reader.calls += 1;
        let alone_since = (reader.serving == 0).then_some(reader.calls);
        reader.serving += 1;
        // A later reset may belong to this call.
        let seen_before = call.connection.seen();
        Reading { deliveries: self, job: job.clone(), call, seen_before, alone_since }
    }

    /// The end of the job's log is about to be sent, to its plain token or to a cursor. A reader that used the plain
    /// token once continues with cursors, as most clients do. Another reader of it is not at the end yet.
    pub(super) fn end(&self, job: &JobId, to_plain_token: bool) {
        if let Some(reader) = self.lock().of.get_mut(job) {
            reader.is_over |= to_plain_token || reader.calls == 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Readers> {
        lock(&self.readers)
    }
}

/// A plain Fetch in progress.
pub(super) struct Reading<'a> {
    deliveries: &'a Deliveries,
    job: JobId,
    call: Call,
    seen_before: Seen,
    /// Number of this Fetch, if no other one was in progress when it began.
    alone_since: Option<u64>,
}

impl Reading<'_> {
    /// Whether a page from `cursor` counts as delivered now. A late reset may change that.
    pub(super) fn has_proof(&self, cursor: u64) -> bool {
        let readers = self.deliveries.lock();
        let pages = readers.of.get(&self.job).map_or(&[][..], |reader| &reader.pages);
        pages.iter().any(|it| it.from == cursor && judge(&it.facts(&self.call)) == Verdict::Delivered)
    }

    /// The plain token's cursor, given the one in the store.
    pub(super) fn place(&self, stored: u64) -> u64 {
        let mut readers = self.deliveries.lock();
        readers.of.get_mut(&self.job).map_or(stored, |reader| reader.unsaved_cursor.resolve(stored))
    }

    /// Flag that is set while a write of the cursor to the store is in progress.
    pub(super) fn is_recording(&self) -> Arc<AtomicBool> {
        let readers = self.deliveries.lock();
        readers.of.get(&self.job).map(|reader| Arc::clone(&reader.is_recording)).unwrap_or_default()
    }

    /// The log was restored from a copy that ends there: the token is read no further.
    pub(super) fn restored(&self) {
        if let Some(reader) = self.deliveries.lock().of.get_mut(&self.job) {
            reader.unsaved_cursor = UnsavedCursor::default();
        }
    }

    /// Where the plain token's cursor moves, if a page sent from `cursor` was delivered. `has_proof` is from before
    /// the wait for resets: a proof that appeared later does not count yet.
    pub(super) fn delivered(&self, cursor: u64, has_proof: bool) -> Option<u64> {
        let mut readers = self.deliveries.lock();
        let reader = readers.of.get_mut(&self.job)?;
        let mut delivered = None;
        reader.pages.retain(|page| {
            if page.from != cursor {
                return false;
            }
            match judge(&page.facts(&self.call)) {
                Verdict::Delivered if has_proof => {
                    delivered = delivered.max(Some(page.to));
                    false
                }
                Verdict::Open => true,
                Verdict::Delivered | Verdict::Unproved => false,
            }
        });
        if let Some(to) = delivered {
            reader.unsaved_cursor.advance(cursor, to);
        }
        delivered
    }

    /// Notes that the page after `from` up to `to` is about to be sent. The mark is put into the response.
    pub(super) fn note(&self, from: u64, to: u64) -> Option<WriteCompletion> {
        let mut readers = self.deliveries.lock();
        let reader = readers.of.get_mut(&self.job)?;
        // With two concurrent calls, no later sign shows which of them was received.
        if self.alone_since != Some(reader.calls) {
            return None;
        }
        if reader.pages.len() >= MAX_PAGES_PER_JOB {
            reader.pages.remove(0);
        }
        let sent = WriteCompletion::on(&self.call.connection);
        reader.pages.push(SentPage {
            from,
            to,
            call: self.call.clone(),
            seen_before: self.seen_before,
            sent: sent.clone(),
            followed: None,
        });
        Some(sent)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut readers = self.deliveries.lock();
        if let Some(reader) = readers.of.get_mut(&self.job) {
            reader.serving = reader.serving.saturating_sub(1);
            if reader.serving == 0 && reader.pages.is_empty() && !reader.unsaved_cursor.is_ahead() {
                readers.of.remove(&self.job);
            }
        }
    }
}
