//! TERM and INT, in each phase of a step.

use nix::sys::signal::Signal;
use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

#[test]
fn no_statement_begins_after_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.db");
        let mut agent = Agent::start(dir.path(), &[("CREATE TABLE t (a)", false)]);
        assert!(matches!(agent.receive(), Some(Frame::Started(_))));
        agent.signal_and_await_receipt(signal);
        agent.acknowledge(1);
        assert_eq!(agent.ending_signal(), Some(signal));
        let tables: i64 = rusqlite::Connection::open(file)
            .unwrap()
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 0);
    }
}

#[test]
fn running_statement_ends_without_a_failure() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(dir.path(), &[("SELECT 1", true), (ENDLESS, true)]);
        let started = |frame: Option<Frame>| matches!(frame, Some(Frame::Started(_)));
        assert!(started(agent.receive()));
        while !started(agent.receive()) {}
        agent.signal_and_await_receipt(signal);
        assert_eq!(agent.receive(), None);
        assert_eq!(agent.ending_signal(), Some(signal));
    }
}

/// As if the agent's disk were full. The program leaves after its time to end.
#[test]
fn statement_ends_though_nobody_takes_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let rows = ENDLESS.replace("max(i)", "i");
    let mut agent = Agent::start(dir.path(), &[(&rows, true)]);
    while !matches!(agent.receive(), Some(Frame::Rows(_))) {}
    agent.await_block();
    agent.signal_and_await_receipt(Signal::SIGTERM);
    assert_eq!(agent.ending_signal(), Some(Signal::SIGTERM));
}
