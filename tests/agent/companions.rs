//! A command with a companion, as real processes. Both are small Python programs that speak the submitter channel.

mod endings;

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::agent::{
    Assignment, Cancel, Companion, Outcome, attach_response::Message, outcome::Reason,
};
use sqlflow_proto::record::record::Payload;
use sqlflow_tests::attach::{Attach, AttachEnded, OnCommit};
use sqlflow_tests::cgroup::Group;
use sqlflow_tests::python;

/// The channel for both. `receive` returns the number of the field and its bytes.
const CHANNEL: &str = "
import os, signal, socket, sys, time
STARTED, HEAD, ROWS, ENDED, PROGRESS, FAILURE, COMMIT = 3, 4, 5, 6, 7, 10, 11
START, GRANTED, REFUSED, COMMAND_ENDED = 1, 3, 4, 6
channel = socket.socket(fileno=int(os.environ['SQLFLOW_CHANNEL_FD']))
peer = socket.socket(fileno=int(os.environ['SQLFLOW_COMPANION_FD']))
def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body
def send(number, body=b''):
    data = bytes([8, 0]) + field(number, body)
    channel.sendall(varint(len(data)) + data)
def exactly(n):
    data = channel.recv(n, socket.MSG_WAITALL) if n else b''
    if len(data) < n:
        sys.exit('the agent closed the channel')
    return data
def number():
    n = shift = 0
    while True:
        byte = exactly(1)[0]
        n |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return n
def receive():
    size = number()
    tag = exactly(1)[0]
    rest = exactly(size - 1)
    skip = next(i for i, byte in enumerate(rest) if byte < 128) + 1
    return tag >> 3, rest[skip:]
def fail(message, peer_lost=False):
    send(FAILURE, field(1, message.encode()) + (bytes([64, 1]) if peer_lost else b''))
    sys.exit(1)
def say(text):
    os.write(1, (text + '\\n').encode())
def until_peer_is_lost():
    while peer.recv(100):
        pass
def note(text):
    with open(os.environ['DIR'] + '/notes', 'a') as notes:
        notes.write(text + ' ')
def at_term(text, code=143):
    def handle(*_):
        note(text)
        os._exit(code)
    signal.signal(signal.SIGTERM, handle)
";

/// Both say this once they run.
const UP: &str = "receive(); say(f'{sys.argv[1]} {os.getpid()} is up')";
/// Reports the loss of its peer.
const PEER_LOST: &str = "until_peer_is_lost(); fail(f'{sys.argv[1]} lost its peer', peer_lost=True)";
/// Completes its work after the command.
const COMPLETE: &str = "
while receive()[0] != COMMAND_ENDED: pass
send(COMMIT)
assert receive()[0] == GRANTED
send(ENDED)
";

fn program(name: &str, code: &str) -> Vec<String> {
    let python = python::program().to_str().unwrap().to_owned();
    [&python, "-c", &format!("{CHANNEL}{code}"), name].map(str::to_owned).to_vec()
}

fn companion(command: Vec<String>) -> Companion {
    let secrets = [("db_conn_str".to_owned(), "postgres://secret".to_owned())].into();
    Companion { name: "sqlflow-data".to_owned(), command, secrets }
}

fn assignment(command: &str, beside: &str) -> Assignment {
    Assignment {
        command: program("command", command),
        companions: vec![companion(program("companion", beside))],
        grace_seconds: 1,
        drain_seconds: 1,
        ..Assignment::default()
    }
}

fn start(command: &str, beside: &str) -> Attach {
    Attach::start(assignment(command, beside), OnCommit::Grant)
}

/// The process of a program that is up.
fn pid(run: &Attach, name: &str) -> Pid {
    let find = |stdout: &str| {
        let line = stdout.lines().find(|it| it.starts_with(name) && it.ends_with("is up"))?;
        Some(Pid::from_raw(line.split(' ').nth(1)?.parse().unwrap()))
    };
    run.wait_for(&format!("the {name} is up"), |received| find(&received.stdout()).is_some());
    find(&run.received().stdout()).unwrap()
}

fn notes(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("notes")).unwrap_or_default().trim().to_owned()
}

/// The outcome of a run that left nothing.
fn end(run: Attach) -> (Outcome, AttachEnded) {
    let ended = run.end();
    assert!(ended.outcome.nothing_left, "{:?}", ended.outcome);
    for line in ended.received.stdout().lines().filter(|it| it.ends_with("is up")) {
        let pid = Pid::from_raw(line.split(' ').nth(1).unwrap().parse().unwrap());
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "{line}");
    }
    (ended.outcome.clone(), ended)
}

fn cancel(run: &Attach, grace_seconds: u32) {
    run.send(Message::Cancel(Cancel { reason: "by the user".to_owned(), grace_seconds }));
}

fn expect_killed(outcome: &Outcome, program: &str) {
    let expected = format!("{program} was killed by SIGKILL, which the agent did not send");
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Signaled, &*expected), "{outcome:?}");
    assert_eq!((outcome.signal, outcome.exit_code), (Some(9), None));
}

#[test]
fn companion_completes_after_its_command() {
    let command = "
kind, start = receive()
assert kind == START and b'secret' not in start and b'from server' in start, start
assert os.environ['SQLFLOW_ATTEMPT'] and not any(it.startswith(('AWS_', 'KRB5')) for it in os.environ)
peer.sendall(b'rows please')
assert peer.recv(100) == b'rows'
send(PROGRESS)
say('predicted')";
    let beside = format!(
        "
kind, start = receive()
assert kind == START and b'postgres://secret' in start and b'from server' not in start, start
assert os.environ['SQLFLOW_ATTEMPT'] and not any(it.startswith(('AWS_', 'KRB5')) for it in os.environ)
send(STARTED)
assert peer.recv(100) == b'rows please'
peer.sendall(b'rows')
{}",
        COMPLETE.replace("send(ENDED)", "say('swapped'); send(ENDED)")
    );
    let mut assignment = assignment(command, &beside);
    assignment.secrets.insert("note".to_owned(), "from server".to_owned());
    for name in ["AWS_SECRET_ACCESS_KEY", "KRB5CCNAME", "KRB5_CLIENT_KTNAME"] {
        assignment.environment.insert(name.to_owned(), "x".to_owned());
    }
    let (outcome, ended) = end(Attach::start(assignment, OnCommit::Grant));
    assert_eq!((outcome.reason(), outcome.exit_code), (Reason::Succeeded, Some(0)), "{outcome:?}");
    assert!(ended.received.hello.unwrap().supports_companions);
    assert_eq!(ended.received.commits, 1);
    let shown = ended.received.records.iter().filter_map(|it| match it.payload.as_ref()? {
        Payload::Started(_) => Some("started".to_owned()),
        Payload::Progress(_) => Some("progress".to_owned()),
        Payload::Ended(_) => Some("ended".to_owned()),
        Payload::Output(output) => Some(String::from_utf8_lossy(&output.data).into_owned()),
        _ => None,
    });
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, ["started", "progress", "predicted\n", "swapped\n", "ended"], "in order");
}

#[test]
fn command_goes_on_after_the_success_of_its_companion() {
    let (outcome, ended) = end(start("until_peer_is_lost(); say('trained')", "receive(); send(ENDED)"));
    assert_eq!(outcome.reason(), Reason::Succeeded, "{outcome:?}");
    assert_eq!(ended.received.stdout(), "trained\n");
}

/// Killed from outside, while the other one reports the consequence or notices nothing.
#[test]
fn killed_program_is_the_cause() {
    let waits = "signal.pause()";
    for other in [PEER_LOST, waits, "until_peer_is_lost(); sys.exit(3)"] {
        let run = start(&format!("{UP}; {other}"), &format!("{UP}; {waits}"));
        pid(&run, "command");
        kill(pid(&run, "companion"), Signal::SIGKILL).unwrap();
        let (outcome, ended) = end(run);
        expect_killed(&outcome, "sqlflow-data");
        assert!(!ended.received.stderr().contains("lost its peer"), "a consequence is not shown");

        let run = start(&format!("{UP}; {waits}"), &format!("{UP}; {other}"));
        pid(&run, "companion");
        kill(pid(&run, "command"), Signal::SIGKILL).unwrap();
        expect_killed(&end(run).0, "the command");
    }
}

/// Before it has read anything, while it waits for the command, before its commit, and after the grant.
#[test]
fn companion_killed_in_any_phase_is_the_cause() {
    let die = "os.kill(os.getpid(), signal.SIGKILL)";
    for (command, beside, commits) in [
        (PEER_LOST, die.to_owned(), 0),
        (PEER_LOST, format!("receive(); send(STARTED); peer.sendall(b'x'); {die}"), 0),
        ("receive()", format!("while receive()[0] != COMMAND_ENDED: pass\n{die}"), 0),
        ("receive()", COMPLETE.replace("send(ENDED)", die), 1),
        ("receive()", format!("{COMPLETE}\n{die}"), 1),
    ] {
        let (outcome, ended) = end(start(command, &beside));
        expect_killed(&outcome, "sqlflow-data");
        assert_eq!(ended.received.commits, commits, "{beside}");
    }
}

#[test]
fn command_killed_in_any_phase_is_the_cause() {
    let die = "os.kill(os.getpid(), signal.SIGKILL)";
    for command in [
        die.to_owned(),
        format!("receive(); {die}"),
        format!("receive(); peer.recv(1); {die}"),
        format!("receive(); send(PROGRESS); peer.recv(1); {die}"),
    ] {
        let beside = format!("receive(); send(STARTED); peer.sendall(b'x'); {PEER_LOST}");
        let (outcome, ended) = end(start(&command, &beside));
        expect_killed(&outcome, "the command");
        assert_eq!(ended.received.commits, 0);
        let ends = ended.received.records.iter().filter(|it| matches!(it.payload, Some(Payload::Ended(_))));
        assert_eq!(ends.count(), 0);
    }
}

#[test]
fn both_killed_at_once_is_one_outcome() {
    let run = start(&format!("{UP}; signal.pause()"), &format!("{UP}; signal.pause()"));
    let pids = [pid(&run, "command"), pid(&run, "companion")];
    kill(run.pid(), Signal::SIGSTOP).unwrap();
    for pid in pids {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    kill(run.pid(), Signal::SIGCONT).unwrap();
    let (outcome, _) = end(run);
    assert_eq!((outcome.reason(), outcome.signal), (Reason::Signaled, Some(9)), "{outcome:?}");
}

/// The report of the one that fails first counts, like that of a submitter alone.
#[test]
fn failure_of_either_program_is_the_message() {
    let say_why = "receive(); fail('no such column: `clas`')";
    let (outcome, _) = end(start(PEER_LOST, say_why));
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Exited, "no such column: `clas`"));
    assert!(!outcome.unexplained);
    // Like a program that handles TERM.
    let careful =
        format!("signal.signal(signal.SIGTERM, signal.SIG_IGN); {UP}; peer.sendall(b'x'); {PEER_LOST}");
    let (outcome, _) = end(start("receive(); peer.recv(1); fail('no such column: `clas`')", &careful));
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Exited, "no such column: `clas`"));
    assert!(!outcome.unexplained, "the companion reported too");
    let (outcome, _) = end(start(PEER_LOST, "receive(); sys.exit('a bug')"));
    assert_eq!(outcome.message, "sqlflow-data exited with code 1: a bug");
    assert!(outcome.unexplained);
    // The other one succeeded, so nothing else explains the end.
    let (outcome, _) = end(start(PEER_LOST, "receive(); send(ENDED)"));
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Exited, "command lost its peer"));
}

#[test]
fn companion_that_ignores_term_is_killed() {
    let beside = format!(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); {UP}; peer.sendall(b'x')\nwhile True: signal.pause()"
    );
    let (outcome, _) = end(start("receive(); peer.recv(1); fail('bad data')", &beside));
    assert_eq!((outcome.reason(), &*outcome.message), (Reason::Exited, "bad data"));
    assert_eq!((outcome.exit_code, outcome.unexplained), (Some(1), true), "it may have left a table");
}

/// Nothing has run then, not even for a moment.
#[test]
fn program_that_cannot_be_started_leaves_nothing() {
    let marks = "note('ran')";
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let plain = plain.to_str().unwrap();
    for (broken, cause) in [
        ("/no/such/sqlflow-data", "no such file"),
        ("no-such-sqlflow-data", "not found in any folder of PATH"),
        (plain, "it is not executable"),
    ] {
        let mut assignment = assignment(marks, "");
        assignment.companions[0].command = vec![broken.to_owned()];
        let (outcome, ended) = end(Attach::start(assignment, OnCommit::Grant));
        assert_eq!(outcome.reason(), Reason::StartFailed, "{outcome:?}");
        let expected = format!("cannot start {broken}: {cause}");
        assert!(outcome.message.starts_with(&expected), "{}", outcome.message);
        assert_eq!(notes(ended.dir.path()), "");
    }
    let mut assignment = assignment("", &format!("receive(); {marks}; {UP}"));
    assignment.command = vec!["/no/such/python".to_owned()];
    let (outcome, ended) = end(Attach::start(assignment.clone(), OnCommit::Grant));
    assert_eq!((outcome.reason(), outcome.retryable), (Reason::StartFailed, false), "{outcome:?}");
    assert_eq!(outcome.message, "cannot start /no/such/python: no such file");
    assert_eq!(notes(ended.dir.path()), "", "the companion got no Start frame");

    assignment.companions[0].command.clear();
    let (outcome, _) = end(Attach::start(assignment.clone(), OnCommit::Grant));
    assert_eq!(outcome.message, "cannot start sqlflow-data: its command is empty");
    assignment.companions.push(Companion::default());
    let (outcome, _) = end(Attach::start(assignment, OnCommit::Grant));
    assert_eq!(
        outcome.message,
        "cannot start 2 companions: this agent starts one at most; install the server's version"
    );
}

#[test]
fn results_are_accepted_from_the_companion_only() {
    for kind in ["started", "head", "rows", "ended", "commit"] {
        let command = format!("receive(); send({}); signal.pause()", kind.to_uppercase());
        let (outcome, ended) = end(start(&command, &format!("receive(); {PEER_LOST}")));
        assert_eq!(outcome.reason(), Reason::AgentFailed, "{outcome:?}");
        assert_eq!(
            outcome.message,
            format!(
                "cannot accept the frame `{kind}` from the command: only sqlflow-data may send it; \
                 use the submitter of the agent's version"
            )
        );
        assert_eq!(ended.received.commits, 0);
        let is_result = |it: &&sqlflow_proto::record::Record| {
            let payload = it.payload.as_ref();
            matches!(
                payload,
                Some(Payload::Started(_) | Payload::Head(_) | Payload::Rows(_) | Payload::Ended(_))
            )
        };
        assert_eq!(ended.received.records.iter().filter(is_result).count(), 0);
    }
}

#[test]
fn broken_channel_names_its_program() {
    let broken = "receive(); channel.sendall(b'\\x05hello'); signal.pause()";
    let (outcome, _) = end(start(broken, &format!("receive(); {PEER_LOST}")));
    assert_eq!(outcome.reason(), Reason::AgentFailed, "{outcome:?}");
    assert!(
        outcome.message.starts_with("the command: the submitter channel is broken"),
        "{}",
        outcome.message
    );
    let (outcome, _) = end(start(&format!("receive(); {PEER_LOST}"), broken));
    assert_eq!(outcome.reason(), Reason::AgentFailed, "{outcome:?}");
    assert!(
        outcome.message.starts_with("sqlflow-data: the submitter channel is broken"),
        "{}",
        outcome.message
    );
}

/// Each program's TERM reaches its own descendants, also those in a session of their own.
#[test]
fn descendants_get_the_signal_of_their_program() {
    let with_child = |name: &str| {
        format!(
            "
import subprocess
child = '''import os, signal, time
def handle(*_):
    open(os.environ['DIR'] + '/notes', 'a').write('{name}-child ')
    os._exit(0)
signal.signal(signal.SIGTERM, handle)
os.write(1, b'{name}-child %d is up\\\\n' % os.getpid())
time.sleep(600)'''
subprocess.Popen([sys.executable, '-c', child], start_new_session=True)
def handle(*_):
    # The child notes it first.
    while '{name}-child' not in open(os.environ['DIR'] + '/notes').read(): time.sleep(0.01)
    note('{name}')
    os._exit(143)
signal.signal(signal.SIGTERM, handle)
{UP}; time.sleep(600)"
        )
    };
    let run = start(&with_child("command"), &with_child("companion"));
    std::fs::write(run.dir().join("notes"), "").unwrap();
    for name in ["command-child", "companion-child", "command", "companion"] {
        pid(&run, &format!("{name} "));
    }
    cancel(&run, 3600);
    let (outcome, ended) = end(run);
    assert_eq!(outcome.reason(), Reason::Cancelled, "{outcome:?}");
    assert_eq!(notes(ended.dir.path()), "command-child command companion-child companion");
}

/// The kernel kills the companion, and the command reports the consequence.
#[test]
fn companion_killed_for_lack_of_memory_is_named() {
    const LIMIT: u64 = 64 << 20;
    let group = Group::new("memory", "companion");
    group.set("memory.limit_in_bytes", LIMIT);
    // Swap would make the limit ineffective.
    group.try_set("memory.memsw.limit_in_bytes", LIMIT);
    let dir = tempfile::tempdir().unwrap();
    let agent = group.script(dir.path(), &sqlflow_tests::server::program("sqlflow-agent"));
    let beside = "receive(); x = []\nwhile True: x.append(bytearray(4 << 20))";
    let run = Attach::within(dir, &agent, assignment(PEER_LOST, beside), OnCommit::Hold);
    let (outcome, _) = end(run);
    assert_eq!((outcome.reason(), outcome.signal), (Reason::OutOfMemory, Some(9)), "{outcome:?}");
    assert!(outcome.message.contains("limit 64 MiB"), "{}", outcome.message);
    assert!(outcome.message.ends_with("; sqlflow-data was killed by SIGKILL"), "{}", outcome.message);
}

/// The kernel kills both with the agent.
#[test]
fn companion_ends_with_a_killed_agent() {
    let run = start(&format!("{UP}; signal.pause()"), &format!("{UP}; signal.pause()"));
    let pids = [pid(&run, "command"), pid(&run, "companion")];
    run.kill();
    for pid in pids {
        sqlflow_tests::until::until("it has ended with its agent", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}
