//! A panic is one line in the job.

use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

#[test]
fn panic_is_reported_as_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start_with(dir.path(), &[("SELECT 1", true)], &[("SQLFLOW_TEST_DATA_PANIC", "1")]);
    assert!(matches!(agent.receive(), Some(Frame::Started(_))));
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("there is a failure") };
    assert!(failure.unclear && failure.unprinted && !failure.transient, "{failure:?}");
    assert!(failure.message.starts_with("the data process failed at "), "{}", failure.message);
    assert!(failure.message.contains("a failpoint of tests"), "{}", failure.message);
    assert_eq!((agent.receive(), agent.exit_code()), (None, Some(1)));
}

#[test]
fn argument_that_is_not_unicode_is_a_path() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqlflow-data"));
    command.arg(std::ffi::OsStr::from_bytes(b"no\xff")).env("SQLFLOW_DATASOURCE", "sqlite:///:memory:");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("cannot read the step document no"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
