use std::io::Write as _;

use nix::fcntl::OFlag;
use prost::Message as _;
use sqlflow_proto::agent::{Failure, SubmitterFrame, submitter_frame::Frame};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{StatementEnded, StatementStarted};
use tokio::net::UnixStream;

use super::output_pipe::LONGEST_LINE;
use super::*;
use crate::output::tee::TeeMode;
use crate::supervisor::Program;

/// The ends of the command. Everything is written before the agent reads, so only the rules of the reader give the order.
struct Command {
    stdout: std::fs::File,
    stderr: std::fs::File,
    channel: std::os::unix::net::UnixStream,
}

impl Command {
    fn send(&mut self, frame: Frame) {
        let frame = SubmitterFrame { statement: Some(0), frame: Some(frame), ..SubmitterFrame::default() };
        self.channel.write_all(&frame.encode_length_delimited_to_vec()).expect("there is room");
    }

    fn send_end(&mut self) {
        self.send(Frame::Ended(StatementEnded::default()));
    }

    fn send_start(&mut self) {
        self.send(Frame::Started(StatementStarted::default()));
    }

    fn fail(&mut self, message: &str, unprinted: bool) {
        self.send(Frame::Failure(Failure { message: message.to_owned(), unprinted, ..Failure::default() }));
    }
}

/// What is recorded of a command: kinds of records, and its output.
async fn recorded(command: impl FnOnce(&mut Command)) -> Vec<String> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    let ((out, out_of_child), (err, err_of_child)) = (pipe(), pipe());
    let (channel, channel_of_child) = std::os::unix::net::UnixStream::pair().expect("a pair");
    channel.set_nonblocking(true).expect("it can");
    let mut child =
        Command { stdout: out_of_child.into(), stderr: err_of_child.into(), channel: channel_of_child };
    command(&mut child);
    drop(child);

    let link = Arc::new(Link::new(1 << 20));
    let (events, _events) = mpsc::unbounded_channel();
    let (answers, _answers) = mpsc::channel(1);
    let (_stop, stop) = watch::channel(false);
    let (incoming, _outgoing) = UnixStream::from_std(channel).expect("a socket").into_split();
    let output = |pipe, stream| OutputPipe::new(pipe, stream, None, TeeMode::None).expect("a pipe");
    let reader = Reader {
        link: link.clone(),
        events,
        stdout: output(out, Stream::Stdout),
        stderr: output(err, Stream::Stderr),
        channels: vec![Channel::new(Program::Command, Rights::All, incoming, answers)],
        when_full: WhenFull::Block,
        trace: None,
        stop,
    };
    reader.run().await;
    link.outbox.unacked().records.iter().map(|record| shown(record.payload.as_ref())).collect()
}

fn shown(payload: Option<&Payload>) -> String {
    match payload {
        Some(Payload::Started(_)) => "started".to_owned(),
        Some(Payload::Output(output)) => {
            format!("{} {:?}", output.offset, String::from_utf8_lossy(&output.data))
        }
        Some(Payload::Ended(_)) => "ended".to_owned(),
        _ => "other".to_owned(),
    }
}

#[tokio::test]
async fn output_of_a_statement_precedes_its_end_record() {
    let records = recorded(|command| {
        command.send_start();
        command.stdout.write_all(b"predicted 150 row(s)\n").expect("there is room");
        command.send_end();
    });
    assert_eq!(records.await, ["started", r#"0 "predicted 150 row(s)\n""#, "ended"]);
}

/// Standard error is not ordered with the channel: what a later statement writes may be read before an earlier one ends.
#[tokio::test]
async fn error_of_a_statement_follows_the_end_of_the_one_before() {
    let records = recorded(|command| {
        command.send_start();
        command.send_end();
        command.send_start();
        command.stderr.write_all(b"half a line").expect("there is room");
        command.fail("no such table: t", true);
    });
    let error = [r#"0 "half a line""#, r#"11 "\nno such table: t\n""#];
    assert_eq!(records.await, [&["started"][..], &error[..1], &["ended", "started"], &error[1..]].concat());
    let records = recorded(|command| {
        command.send_start();
        command.stderr.write_all(b"a warning\n").expect("there is room");
        command.fail("no such table: t", true);
    });
    assert_eq!(records.await, ["started", r#"0 "a warning\n""#, r#"10 "no such table: t\n""#]);
    let records = recorded(|command| {
        let message = "lost the data process".to_owned();
        command.send(Frame::Failure(Failure {
            message,
            unprinted: true,
            peer_lost: true,
            ..Failure::default()
        }));
    });
    assert_eq!(records.await, Vec::<String>::new(), "it would hide the cause");
    let records = recorded(|command| command.fail("printed already", false));
    assert_eq!(records.await, Vec::<String>::new());
    let records = recorded(|command| command.fail(&"é".repeat(LONGEST_LINE), true));
    assert_eq!(records.await, [format!("0 {:?}", format!("{}\n", "é".repeat(LONGEST_LINE / 2)))]);
}
