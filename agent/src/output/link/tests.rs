use sqlflow_proto::record::{Output, StatementStarted};

use super::*;

fn say(link: &Link, text: &str) {
    let data = text.as_bytes().to_vec().into();
    link.push_output(Payload::Output(Output { stream: Stream::Stderr.into(), data, offset: 0 }));
}

fn seqs(link: &Link, sent: &mut Sent) -> Vec<(u64, bool)> {
    let message = link.pending().next_message(sent);
    message.iter().for_each(|it| sent.sends(it));
    let Some(Message::Records(batch)) = message else { return Vec::new() };
    let is_gap = |it: &Record| matches!(it.payload, Some(Payload::Gap(_)));
    batch.records.iter().map(|it| (it.seq, is_gap(it))).collect()
}

#[test]
fn a_gap_stands_for_what_a_server_has_acknowledged_and_lost() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, "x"));
    assert_eq!(link.ack(3), Acked::New);
    let (mut sent, acked) = link.resume(1);
    sent.heartbeat_due = false;
    assert_eq!(acked, Acked::Known);
    assert_eq!(seqs(&link, &mut sent), [(3, true)]);
    assert_eq!(seqs(&link, &mut sent), [(4, false), (5, false)]);
    let (mut sent, acked) = link.resume(4);
    sent.heartbeat_due = false;
    assert_eq!((acked, seqs(&link, &mut sent)), (Acked::New, vec![(5, false)]));
}

/// A stream before this one carried them, and its server was slow.
#[test]
fn acknowledgements_that_overtake_a_new_stream_are_no_gap() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, "x"));
    let (mut sent, _) = link.resume(1);
    sent.heartbeat_due = false;
    link.ack(4);
    assert_eq!(seqs(&link, &mut sent), [(5, false)]);
}

#[test]
fn a_heartbeat_does_not_wait_for_the_window_and_records_do() {
    let link = Link::new(1 << 20);
    (0..5).for_each(|_| say(&link, &"x".repeat(50 << 10)));
    let (mut sent, _) = link.resume(0);
    sent.heartbeat_due = false;
    assert_eq!((seqs(&link, &mut sent), seqs(&link, &mut sent)), (vec![(1, false)], vec![(2, false)]));
    assert_eq!(link.pending().next_message(&mut sent), None);
    sent.heartbeat_due = true;
    assert!(matches!(link.pending().next_message(&mut sent), Some(Message::Heartbeat(_))));
    assert_eq!(link.pending().next_message(&mut sent), None);
    sent.acked(1);
    assert_eq!(seqs(&link, &mut sent), [(3, false)]);
}

#[test]
fn the_last_words_are_a_line_from_before_the_first_statement() {
    let link = Link::new(1 << 20);
    assert_eq!(link.stderr_tail(), None);
    say(&link, &"x".repeat(10_000));
    say(&link, "\nModuleNotFoundError: No module ");
    say(&link, "named 'x'\r\n\n");
    assert_eq!(link.stderr_tail().unwrap(), "ModuleNotFoundError: No module named 'x'");
    link.push(Some(0), Payload::Started(StatementStarted::default()));
    assert_eq!(link.stderr_tail(), None);
}
