//! The checker: the rules for every history, whatever the faults were. Pure.
//!
//! - Each record once and in order: positions are 1, 2, 3 and so on, with jumps where a server started, and every
//!   reader saw the same records.
//! - Output: the bytes of a stream of an attempt are there once and in order. Bytes are missing only where a gap record
//!   says so.
//! - No row twice for one statement: a step is only repeated if none of its rows can have been read.
//! - The final status matches what was executed: see [`outcome`].
//! - Nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, JobStatus, LogChunk, Response};
use sqlflow_tests::positions::is_next;

use super::observed::{History, Observed, Reader, numbers};
use super::program::Effect;

/// Length of each line that a submitter of a test prints.
pub const LINE_BYTES: u64 = 8;

/// All violations; empty if there are none.
pub fn check(observed: &Observed) -> Vec<String> {
    let mut wrong: Vec<_> = observed.left.iter().map(|left| format!("left after the end: {left}")).collect();
    for history in &observed.histories {
        wrong.extend(in_order(history));
    }
    let Some(reference) = observed.histories.iter().find(|it| it.reader == Reader::Cursor) else {
        wrong.push("no reader with cursors".to_owned());
        return wrong;
    };
    let Some(end) = &reference.end else {
        wrong.push("the job did not end in time after the last fault".to_owned());
        return wrong;
    };
    for history in &observed.histories {
        wrong.extend(same(reference, history));
    }
    let seen = statements(&reference.results, &mut wrong);
    wrong.extend(rows(observed, &seen, end));
    wrong.extend(output(&reference.results, end));
    wrong.extend(outcome(observed, &seen, end));
    let touched = observed.touched;
    // The agent of a cancelled job may end before it attached.
    if !touched.is_killed && !touched.is_cancelled && !touched.is_without_space {
        let is_gap = |it: &&Response| matches!(it.response, Some(Payload::Gap(_)));
        let gap = reference.results.iter().find(is_gap);
        wrong.extend(gap.map(|gap| format!("a gap, though nothing of the job was killed: {gap:?}")));
    }
    wrong
}

/// A plain token's pages may be repeated. [`same`] compares them.
fn without_repeats(history: &History) -> Vec<Response> {
    let mut seen = BTreeSet::new();
    let is_new = |it: &&Response| history.reader != Reader::Plain || seen.insert(it.position);
    history.results.iter().filter(is_new).cloned().collect()
}

fn in_order(history: &History) -> Option<String> {
    let results = without_repeats(history);
    let mut before = 0;
    for found in results.iter().map(|it| it.position) {
        if !is_next(before, found) {
            let expected = before + 1;
            return Some(format!("{:?}: position {found} where {expected} was expected", history.reader));
        }
        before = found;
    }
    None
}

fn same(reference: &History, other: &History) -> Vec<String> {
    let by_position: BTreeMap<_, _> = reference.results.iter().map(|it| (it.position, it)).collect();
    let mut wrong = Vec::new();
    if let Some(differs) =
        other.results.iter().find(|it| by_position.get(&it.position).is_none_or(|same| *same != *it))
    {
        wrong.push(format!(
            "{:?}: position {} is not what the cursor's reader saw: {:?}",
            other.reader, differs.position, differs.response
        ));
    }
    if other.end != reference.end {
        wrong.push(format!("{:?}: the end is {:?}, not {:?}", other.reader, other.end, reference.end));
    }
    let count = without_repeats(other).len();
    if other.end.is_some() && count != reference.results.len() {
        wrong.push(format!("{:?}: {count} records of {}", other.reader, reference.results.len()));
    }
    wrong
}

/// The records of one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    started: u32,
    heads: u32,
    rows: Vec<i64>,
    succeeded: u32,
}

fn statements(results: &[Response], wrong: &mut Vec<String>) -> BTreeMap<u32, Seen> {
    let mut all = BTreeMap::<u32, Seen>::new();
    for result in results {
        let Some(statement) = result.statement else { continue };
        let seen = all.entry(statement).or_default();
        match &result.response {
            Some(Payload::Started(_)) => seen.started += 1,
            Some(Payload::Head(_)) => seen.heads += 1,
            Some(Payload::Rows(rows)) => {
                if seen.heads == 0 {
                    wrong.push(format!("statement {statement}: rows before their head"));
                }
                seen.rows.extend(numbers(rows));
            }
            Some(Payload::Eoe(_)) => seen.succeeded += 1,
            Some(_) | None => {}
        }
    }
    all
}

fn rows(observed: &Observed, seen: &BTreeMap<u32, Seen>, end: &JobStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let inserts = observed.statements.iter().any(|it| matches!(it.effect, Effect::Mark(_)));
    for (index, statement) in (0..).zip(&observed.statements) {
        let seen = seen.get(&index).cloned().unwrap_or_default();
        let expected = match statement.effect {
            Effect::Rows(count) => count,
            Effect::Mark(_) => 0,
        };
        if !seen.rows.iter().copied().eq(1..=seen.rows.len() as i64) || seen.rows.len() as i64 > expected {
            wrong.push(format!("statement {index}: its rows are not 1, 2, 3 and so on up to {expected}"));
        }
        if seen.heads > 1 || seen.succeeded > 1 || (inserts && seen.started > 1) {
            wrong.push(format!("statement {index}: said more than once: {seen:?}"));
        }
        let is_whole = seen.rows.len() as i64 == expected;
        if seen.succeeded > 0 && !is_whole {
            wrong
                .push(format!("statement {index}: it succeeded with {} of {expected} rows", seen.rows.len()));
        }
        if end.code() == Code::Succeeded && (seen.succeeded != 1 || !is_whole) {
            wrong.push(format!("statement {index}: the job succeeded, and this statement did not"));
        }
    }
    wrong
}

/// A stream of an attempt, read so far.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    has_hole: bool,
}

fn output(results: &[Response], end: &JobStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut outputs = BTreeMap::<(u32, u32, i32), Output>::new();
    let mut gaps = 0_u32;
    let mut gaps_before = BTreeMap::<(u32, u32, i32), u32>::new();
    for result in results {
        let log = match &result.response {
            Some(Payload::Gap(_)) => {
                gaps += 1;
                continue;
            }
            Some(Payload::Log(log)) => log,
            Some(_) | None => continue,
        };
        let key = (log.step, log.attempt, log.stream);
        let output = outputs.entry(key).or_default();
        let is_after_gap = gaps_before.insert(key, gaps).unwrap_or(0) < gaps;
        if let Err(what) = output.take(log, is_after_gap) {
            wrong.push(format!("output {key:?} at offset {}: {what}", log.offset));
        }
    }
    for ((step, attempt, stream), output) in &outputs {
        if *stream == Stream::Stdout as i32 && !output.has_hole && !is_numbered(&output.bytes) {
            wrong.push(format!("output of {step}-{attempt}: its lines are not numbered one by one"));
        }
    }
    let last = outputs.iter().rfind(|((_, _, stream), _)| *stream == Stream::Stdout as i32);
    if let (Code::Succeeded, Some((key, output))) = (end.code(), last)
        && !output.has_hole
        && !output.bytes.rsplit(|byte| *byte == b'\n').nth(1).is_some_and(|line| line.starts_with(b"E"))
    {
        wrong.push(format!("output {key:?}: the job succeeded, and the last line is missing"));
    }
    wrong
}

impl Output {
    fn take(&mut self, log: &LogChunk, is_after_gap: bool) -> Result<(), String> {
        let expected = self.bytes.len() as u64;
        if log.offset < expected {
            return Err(format!("bytes that were there already, up to {expected}"));
        }
        if log.offset > expected && !is_after_gap {
            return Err(format!("bytes from {expected} are missing and no gap says so"));
        }
        self.has_hole |= log.offset > expected;
        self.bytes.resize(usize::try_from(log.offset).map_err(|error| error.to_string())?, 0);
        self.bytes.extend_from_slice(&log.data);
        Ok(())
    }
}

/// Lines `0000000`, `0000001` and so on. The last may be `E` and its number.
fn is_numbered(bytes: &[u8]) -> bool {
    bytes.chunks(LINE_BYTES as usize).enumerate().all(|(number, line)| {
        let [usual, last] = [format!("{number:07}\n"), format!("E{number:06}\n")];
        let is_last = bytes.len() as u64 <= (number as u64 + 1) * LINE_BYTES;
        usual.as_bytes().starts_with(line) || (is_last && last.as_bytes().starts_with(line))
    })
}

/// Compares the final status with what was executed.
///
/// - No insert is executed twice, or without the record that it started.
/// - An insert that succeeded by the log was executed.
/// - SUCCEEDED: every insert was executed once.
/// - An insert may be executed without a record of its success only with MAY_HAVE_EXECUTED (as the cause or in the
///   message) or CANCELLED.
/// - LAUNCH_FAILED: nothing started.
/// - A job succeeds if none of its own processes was killed and it was not cancelled.
fn outcome(observed: &Observed, seen: &BTreeMap<u32, Seen>, end: &JobStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let says_so = end.cause() == Cause::MayHaveExecuted || end.message.contains("may have executed");
    let allows = says_so || end.cause() == Cause::Cancelled;
    for (index, statement) in (0..).zip(&observed.statements) {
        let Effect::Mark(number) = statement.effect else { continue };
        let executed = observed.marks.get(&number).copied().unwrap_or(0);
        let seen = seen.get(&index).cloned().unwrap_or_default();
        let found = match (executed, seen.started > 0, seen.succeeded > 0) {
            (2.., _, _) => "executed more than once",
            (1, false, _) => "executed without the record that it started",
            (0, _, true) => "called a success and not executed",
            (0, _, false) if end.code() == Code::Succeeded => "the job succeeded without it",
            (1, true, false) if end.code() == Code::Failed && !allows => {
                "executed, and the outcome denies it"
            }
            _ => continue,
        };
        wrong.push(format!("insert {number}: {found}: {executed} times, {end:?}"));
    }
    let untouched = !observed.touched.is_killed && !observed.touched.is_without_space;
    match end.code() {
        Code::Succeeded => {}
        Code::Failed => {
            let has_started = seen.values().any(|it| it.started > 0);
            if end.cause() == Cause::LaunchFailed && has_started {
                wrong.push(format!("a statement started, and the outcome is {end:?}"));
            }
            if end.cause() == Cause::Cancelled && !observed.touched.is_cancelled {
                wrong.push("nobody cancelled it".to_owned());
            }
            if untouched && end.cause() != Cause::Cancelled {
                wrong.push(format!("it failed, and none of its own processes was killed: {end:?}"));
            }
        }
        Code::Pending | Code::Running | Code::Unknown => wrong.push(format!("no outcome: {end:?}")),
    }
    wrong
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::column::Values;
    use sqlflow_proto::v1::{Column, EndOfExecution, Gap, Head, Int64s, Rows, StatementStarted};

    use super::*;
    use crate::observed::Touched;
    use crate::program::Statement;

    fn number(position: u64, statement: Option<u32>, response: Payload) -> Response {
        Response { position, statement, time: None, response: Some(response) }
    }

    fn row_batch(numbers: impl IntoIterator<Item = i64>) -> Payload {
        let values: Vec<_> = numbers.into_iter().collect();
        let count = u32::try_from(values.len()).unwrap();
        let column = Column { values: Some(Values::Int64s(Int64s { values })), ..Column::default() };
        Payload::Rows(Rows { count, columns: vec![column] }.into())
    }

    fn log(offset: u64, text: &str) -> Payload {
        let data = text.as_bytes().to_vec().into();
        Payload::Log(LogChunk { stream: Stream::Stdout as i32, offset, data, step: 0, attempt: 1, rank: 0 })
    }

    fn status(code: Code, cause: Cause) -> JobStatus {
        JobStatus { code: code as i32, message: String::new(), cause: cause as i32 }
    }

    fn started() -> Payload {
        Payload::Started(StatementStarted::default())
    }

    /// A correct history of a query with five rows and an insert.
    fn good() -> Observed {
        let payloads = vec![
            (Some(0), started()),
            (Some(0), Payload::Head(Head::default())),
            (None, log(0, "0000000\n00")),
            (Some(0), row_batch(1..=3)),
            (Some(0), row_batch(4..=5)),
            (Some(0), Payload::Eoe(EndOfExecution::default())),
            (Some(1), started()),
            (Some(1), Payload::Eoe(EndOfExecution::default())),
            (None, log(10, "00001\nE000002\n")),
        ];
        let results: Vec<_> =
            (1..).zip(payloads).map(|(position, (statement, it))| number(position, statement, it)).collect();
        let end = Some(status(Code::Succeeded, Cause::Unspecified));
        let history = |reader| History { reader, results: results.clone(), end: end.clone() };
        let statement = |effect| Statement { sql: String::new(), effect };
        Observed {
            job_id: "a".to_owned(),
            statements: vec![statement(Effect::Rows(5)), statement(Effect::Mark(1))],
            histories: vec![history(Reader::Cursor), history(Reader::Plain), history(Reader::AfterTheEnd)],
            touched: Touched::default(),
            marks: BTreeMap::from([(1, 1)]),
            left: Vec::new(),
        }
    }

    /// Changes the results of every reader alike, and numbers the positions again.
    fn changed(change: impl Fn(&mut Vec<Response>)) -> Observed {
        let mut observed = good();
        for history in &mut observed.histories {
            change(&mut history.results);
            for (position, result) in (1..).zip(&mut history.results) {
                result.position = position;
            }
        }
        observed
    }

    fn ended(mut observed: Observed, code: Code, cause: Cause) -> Observed {
        for history in &mut observed.histories {
            history.end = Some(status(code, cause));
        }
        observed.touched.is_killed = true;
        observed
    }

    #[track_caller]
    fn finds(observed: &Observed, text: &str) {
        let wrong = check(observed);
        assert!(wrong.iter().any(|it| it.contains(text)), "{text} is not in {wrong:?}");
    }

    #[test]
    fn correct_history_passes() {
        assert_eq!(check(&good()), Vec::<String>::new());
    }

    #[test]
    fn plain_token_may_repeat_and_not_skip_pages() {
        let mut observed = good();
        let again: Vec<_> = observed.histories[1].results[2..5].to_vec();
        observed.histories[1].results.splice(5..5, again);
        assert_eq!(check(&observed), Vec::<String>::new());
        observed.histories[1].results.retain(|it| it.position != 4);
        finds(&observed, "Plain: position 5 where 4 was expected");
    }

    #[test]
    fn duplicated_and_lost_records_are_found() {
        let mut observed = good();
        let again = observed.histories[0].results[3].clone();
        observed.histories[0].results.insert(4, again);
        finds(&observed, "Cursor: position 4 where 5 was expected");
        let mut observed = good();
        observed.histories[0].results.remove(3);
        finds(&observed, "Cursor: position 5 where 4 was expected");
        let mut observed = good();
        observed.histories[2].results.pop();
        finds(&observed, "AfterTheEnd: 8 records of 9");
        finds(&changed(|results| results[4] = results[3].clone()), "its rows are not");
        finds(&changed(|results| drop(results.remove(4))), "succeeded with 3 of 5 rows");
        finds(&changed(|results| results.insert(1, results[0].clone())), "said more than once");
        finds(&changed(|results| drop(results.remove(7))), "this statement did not");
    }

    #[test]
    fn readers_with_different_records_or_ends_are_found() {
        let mut observed = good();
        observed.histories[2].results[3].response = Some(row_batch(2..=4));
        finds(&observed, "position 4 is not what");
        let mut observed = good();
        observed.histories[1].end = Some(status(Code::Failed, Cause::Lost));
        finds(&observed, "Plain: the end is");
        observed.histories[0].end = None;
        finds(&observed, "did not end in time");
    }

    #[test]
    fn lost_duplicated_or_changed_output_is_found() {
        finds(&changed(|results| drop(results.remove(2))), "are missing and no gap says so");
        finds(&changed(|results| results.insert(3, results[2].clone())), "there already");
        finds(&changed(|results| results[8].response = Some(log(10, "00002\n"))), "not numbered");
        finds(&changed(|results| drop(results.pop())), "the last line is missing");
        let mut observed = changed(|results| results[2].response = Some(Payload::Gap(Gap::default())));
        finds(&observed, "a gap, though");
        observed.touched.is_killed = true;
        assert_eq!(check(&observed), Vec::<String>::new());
    }

    #[test]
    fn false_outcomes_are_found() {
        let with_marks = |marks| Observed { marks: BTreeMap::from([(1, marks)]), ..good() };
        finds(&with_marks(2), "executed more than once");
        finds(&with_marks(0), "called a success and not executed");
        // The record of its success is missing.
        let unsaid = |cause, marks| {
            let observed = ended(changed(|results| drop(results.remove(7))), Code::Failed, cause);
            Observed { marks: BTreeMap::from([(1, marks)]), ..observed }
        };
        for cause in [Cause::Lost, Cause::Killed, Cause::OutOfMemory, Cause::StatementFailed] {
            finds(&unsaid(cause, 1), "the outcome denies it");
            assert_eq!(check(&unsaid(cause, 0)), Vec::<String>::new());
        }
        for marks in [0, 1] {
            assert_eq!(check(&unsaid(Cause::MayHaveExecuted, marks)), Vec::<String>::new());
        }
        finds(&unsaid(Cause::Cancelled, 1), "nobody cancelled it");
        finds(&unsaid(Cause::LaunchFailed, 0), "a statement started");
        let not_started = changed(|results| drop(results.drain(6..8)));
        finds(
            &ended(not_started, Code::Failed, Cause::MayHaveExecuted),
            "without the record that it started",
        );
        let mut untouched = unsaid(Cause::Lost, 0);
        untouched.touched = Touched::default();
        finds(&untouched, "none of its own processes was killed");
    }

    #[test]
    fn leftovers_are_found() {
        finds(&Observed { left: vec!["a process".to_owned()], ..good() }, "left after the end: a process");
    }
}
