use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Output, StatementEnded, StatementStarted};

use super::*;

fn say(link: &Link, text: &str) {
    let data = text.as_bytes().to_vec().into();
    link.outbox.push_output(Payload::Output(Output { stream: Stream::Stderr.into(), data, offset: 0 }));
}

fn seqs(link: &Link, sent: &mut Sent) -> Vec<(u64, bool)> {
    let message = link.take_message(sent);
    message.iter().for_each(|it| sent.sends(it));
    let Some(Message::Records(batch)) = message else { return Vec::new() };
    let is_gap = |it: &Record| matches!(it.payload, Some(Payload::Gap(_)));
    batch.records.iter().map(|it| (it.seq, is_gap(it))).collect()
}

#[test]
fn gap_record_stands_for_acknowledged_records_that_a_server_lost() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, "x"));
    assert_eq!(link.outbox.ack(3), Acked::New);
    let (mut sent, acked) = link.resume(1);
    sent.heartbeat_due = false;
    assert_eq!(acked, Acked::Known);
    assert_eq!(seqs(&link, &mut sent), [(3, true)]);
    assert_eq!(seqs(&link, &mut sent), [(4, false), (5, false)]);
    let (mut sent, acked) = link.resume(4);
    sent.heartbeat_due = false;
    assert_eq!((acked, seqs(&link, &mut sent)), (Acked::New, vec![(5, false)]));
}

/// An earlier stream carried the records, and its server was slow.
#[test]
fn acknowledgements_of_an_older_stream_make_no_gap() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, "x"));
    let (mut sent, _) = link.resume(1);
    sent.heartbeat_due = false;
    link.outbox.ack(4);
    assert_eq!(seqs(&link, &mut sent), [(5, false)]);
}

#[test]
fn full_window_delays_records_and_not_heartbeats() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, &"x".repeat(50 << 10)));
    let (mut sent, _) = link.resume(0);
    sent.heartbeat_due = false;
    assert_eq!((seqs(&link, &mut sent), seqs(&link, &mut sent)), (vec![(1, false)], vec![(2, false)]));
    assert_eq!(link.take_message(&mut sent), None);
    sent.heartbeat_due = true;
    assert!(matches!(link.take_message(&mut sent), Some(Message::Heartbeat(_))));
    assert_eq!(link.take_message(&mut sent), None);
    sent.acked(1);
    assert_eq!(seqs(&link, &mut sent), [(3, false)]);
}

#[test]
fn stderr_tail_is_the_last_line_before_the_first_statement() {
    let link = Link::new(1 << 20);
    assert_eq!(link.outbox.stderr_tail(), None);
    say(&link, &"x".repeat(10_000));
    say(&link, "\nModuleNotFoundError: No module ");
    say(&link, "named 'x'\r\n\n");
    assert_eq!(link.outbox.stderr_tail().unwrap(), "ModuleNotFoundError: No module named 'x'");
    link.outbox.push(Some(0), Payload::Started(StatementStarted::default()));
    assert_eq!(link.outbox.stderr_tail(), None);
}

#[test]
fn end_of_a_statement_with_an_output_follows_the_commit() {
    let link = Link::new(1 << 20);
    let ended = |micros| Payload::Ended(StatementEnded { duration_micros: micros, rows_affected: None });
    link.outbox.hold_ends([1, 2]);
    link.outbox.push(Some(0), ended(7));
    link.outbox.push(Some(1), ended(8));
    assert_eq!(link.outbox.last_seq(), 1, "only that of another statement is recorded");
    link.outbox.push_held_ends();
    let ends = link.outbox.terminal_records().records;
    let ends: Vec<_> = ends.into_iter().map(|record| (record.statement, record.payload)).collect();
    assert_eq!(ends[..2], [(Some(0), Some(ended(7))), (Some(1), Some(ended(8)))]);
    assert!(matches!(ends[2], (Some(2), Some(Payload::Ended(_)))), "its submitter ran in an earlier attempt");
    link.outbox.push_held_ends();
    assert_eq!(link.outbox.last_seq(), 3, "once");
}
