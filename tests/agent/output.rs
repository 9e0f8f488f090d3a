//! The command's output: latency, fidelity, order, and readers or disks that block.

use std::path::Path;

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Exec, logged};
use sqlflow_tests::gate::Gate;
use sqlflow_tests::python;
use sqlflow_tests::server::program;
use sqlflow_tests::until::until;

const MIB: u64 = 1 << 20;

/// A#1259: Python buffers lines by default. The line is read while the program waits.
#[test]
fn line_arrives_when_it_is_printed() {
    let code = "import sys; print('first'); open(sys.argv[1]).readline(); print('second')";
    let run = Exec::new();
    let path = run.dir().join("gate");
    let gate = Gate::new(&path);
    let mut running = run.python(code, &[path.to_str().unwrap()]);
    assert_eq!(running.line(), "first");
    gate.open();
    assert_eq!(running.end().stdout, b"second\n");
}

/// A#1259
#[test]
fn explicit_pythonunbuffered_is_kept() {
    let ended = Exec::new().env("PYTHONUNBUFFERED", "").shell("echo \"<$PYTHONUNBUFFERED>\"").end();
    assert_eq!(ended.stdout, b"<>\n");
}

/// AF#63173: arbitrary bytes, and a character that is split over two writes.
#[test]
fn non_utf8_output_is_kept_unchanged() {
    let code = "import os, random, sys
data = random.Random(7).randbytes(5 << 20)
os.write(1, '\u{1f980}'.encode()[:2]); os.write(2, b'\\xff'); os.write(1, '\u{1f980}'.encode()[2:])
sys.stdout.buffer.write(data)";
    let (ended, dir) = Exec::new().log_to("log").python(code, &[]).end_in_folder();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (stdout, stderr, records) = logged(dir.path(), "log");
    assert_eq!(
        (stdout.len(), &stdout[..4], stderr.as_slice()),
        (4 + (5 << 20), "🦀".as_bytes(), b"\xff".as_slice())
    );
    assert!(stdout == ended.stdout, "the tee and the log differ");
    // Offsets are contiguous.
    let mut offset = 0;
    for output in records.iter().map(|it| &it["output"]).filter(|it| it["stream"] == "stdout") {
        assert_eq!(output["offset"].as_u64(), Some(offset));
        offset += output["bytes"].as_u64().unwrap();
    }
    assert_eq!(offset, 4 + 5 * MIB);
}

/// A shell may pass any bytes in an argument.
#[test]
fn non_utf8_argument_is_passed_unchanged() {
    let agent = program("sqlflow-agent");
    let inner = "\"$AGENT\" exec -- printf %s \"$(printf 'caf\\351')\"";
    let ended = Exec::new().env("AGENT", agent.to_str().unwrap()).shell(inner).end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"caf\xe9"[..]), "{}", ended.stderr);
}

/// moby#13333: an endless line, followed by a short one.
#[test]
fn line_of_100_mib_needs_bounded_memory() {
    let script =
        "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo later; echo ready >&2; read wait < $DIR/gate";
    let run = Exec::shipped().log_to("log").flags(["--tee", "none"]);
    let gate = Gate::new(&run.dir().join("gate"));
    let running = run.shell(script);
    // Returns once the command has printed everything.
    gate.open();
    let peak = running.memory_peak();
    let (ended, dir) = running.end_in_folder();
    assert_eq!(ended.code, Some(0));
    let (stdout, _, _) = logged(dir.path(), "log");
    assert_eq!(stdout.len(), 104_857_600 + 1 + 6);
    assert!(stdout.ends_with(b"x\nlater\n"));
    assert!(peak > 0 && peak < 64 * MIB, "the agent used {peak} bytes");
}

/// A#7671: progress bars are visible while the program runs, and the last state is kept.
#[test]
fn progress_without_newline_is_logged_at_once() {
    use std::io::Read as _;
    let run = Exec::new().log_to("log");
    let gate = Gate::new(&run.dir().join("gate"));
    let log = run.dir().join("log/stdout");
    let running = run.shell("printf '\\r 10%%'; read wait < $DIR/gate; printf '\\r100%%'");
    let mut seen = String::new();
    while seen != "\r 10%" {
        seen.clear();
        if let Ok(mut file) = std::fs::File::open(&log) {
            file.read_to_string(&mut seen).unwrap();
        }
    }
    gate.open();
    assert_eq!(running.end().stdout, b"\r 10%\r100%");
}

/// A#7671: also with `--tee lines`, while the program waits.
#[test]
fn tee_lines_shows_an_idle_progress_bar() {
    let run = Exec::new().flags(["--tee", "lines"]);
    let gate = Gate::new(&run.dir().join("gate"));
    let mut running = run.shell("printf '\\r 10%%'; read wait < $DIR/gate; printf '\\r100%%'");
    assert_eq!(running.line(), " 10%");
    gate.open();
    assert_eq!(running.end().stdout, b"100%\n");
}

/// A#7671: in a container's log, which is read by lines, a bar is one line per second, and its last state is shown. The
/// agent's own log keeps every byte.
#[test]
fn tee_lines_turns_a_progress_bar_into_few_lines() {
    let script = "i=0; while [ $i -lt 1000 ]; do printf '\\r%d' $i; i=$((i+1)); done; printf '\\nend\\n'";
    let (ended, dir) = Exec::new().log_to("log").flags(["--tee", "lines"]).shell(script).end_in_folder();
    let shown = String::from_utf8(ended.stdout).unwrap();
    let states: Vec<u32> =
        shown.strip_suffix("end\n").unwrap().lines().map(|it| it.parse().unwrap()).collect();
    assert!(states.is_sorted() && states.last() == Some(&999), "{shown:?}");
    assert!(states.len() < 100, "{shown:?}");
    let expected: String = (0..1000).map(|i| format!("\r{i}")).collect();
    assert_eq!(logged(dir.path(), "log").0, format!("{expected}\nend\n").as_bytes());
}

/// The order between the two streams is kept for output that was read before the next write. So the command here waits
/// until the kernel reports that its pipe is empty.
#[test]
fn alternating_streams_keep_their_order() {
    let code = "import array, fcntl, os, termios, time
def waiting(pipe, size=array.array('i', [0])):
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]
for i in range(50):
    os.write(1 + i % 2, str(i).encode())
    while waiting(1 + i % 2): time.sleep(0.001)";
    let (_, dir) = Exec::new().log_to("log").python(code, &[]).end_in_folder();
    let (_, _, records) = logged(dir.path(), "log");
    let streams: Vec<_> = records.iter().filter_map(|it| it["output"]["stream"].as_str()).collect();
    let expected: Vec<_> = (0..50).map(|i| ["stdout", "stderr"][i % 2]).collect();
    assert_eq!(streams, expected);
    let times: Vec<_> = records.iter().filter_map(|it| it["time_unix_micros"].as_i64()).collect();
    assert!(times.is_sorted());
}

/// The agent with its stdout redirected to this file.
fn into(file: &str) -> Exec {
    let script = format!("exec \"$0\" \"$@\" > {file}");
    Exec::within(&["env", "--default-signal", "sh", "-c", &script])
}

/// Unlike a closed reader, a full disk does not end the command.
#[test]
fn full_disk_for_stdout_is_reported_and_the_command_continues() {
    let long = "head -c 3000000 /dev/zero && echo done >&2";
    for (script, bytes) in [("echo hi", 3), (long, 3_000_000)] {
        let ended = into("/dev/full").shell(script).end();
        let message = ended.outcome["message"].as_str().unwrap();
        assert_eq!((ended.code, &ended.outcome["reason"]), (Some(65), &"agent_failed".into()), "{message}");
        let missing = format!("{bytes} bytes of its stdout could not be written: No space left on device");
        assert_eq!(message, format!("the command succeeded, but {missing}"));
        let named = ended.stderr.matches("cannot write to stdout: No space left on device").count();
        assert!(named == 1 && ended.stderr.contains(message), "{}", ended.stderr);
        assert!(script == "echo hi" || ended.stderr.contains("done\n"), "{}", ended.stderr);
    }
    let failed = into("/dev/full").shell("echo hi; exit 3").end();
    assert_eq!((failed.code, &failed.outcome["reason"]), (Some(3), &"exited".into()));
    assert!(failed.stderr.contains("3 bytes of its stdout could not be written"), "{}", failed.stderr);
    let (kept, dir) = into("/dev/full").log_to("log").shell(long).end_in_folder();
    assert_eq!(kept.code, Some(0), "the log has all of it\n{}", kept.stderr);
    let (stdout, _, records) = logged(dir.path(), "log");
    assert_eq!(stdout.len(), 3_000_000);
    assert!(records.iter().any(|it| it["notice"].as_str().is_some_and(|it| it.contains("No space left"))));
}

/// Another program that shares the agent's stdout, as on a terminal, may have made it non-blocking.
#[test]
fn non_blocking_stdout_gets_all_output() {
    let python = python::program();
    let code = "import os, sys; os.set_blocking(1, False); os.execv(sys.argv[1], sys.argv[1:])";
    let run = Exec::within(&["env", "--default-signal", python.to_str().unwrap(), "-c", code]);
    let mut running = run.shell("head -c 1000000 /dev/zero; echo printed >&2");
    // The agent's queue holds everything, and a pipe does not. Nobody reads before the command has ended.
    running.wait_for_error("printed");
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 1_000_000), "{}", ended.stderr);
}

/// More output than the agent's queue holds, and no more than queue and pipe hold together. Another process keeps the
/// pipe open, so that the drain visibly times out.
#[test]
fn slow_reader_gets_all_output_after_the_drain_timeout() {
    let run = Exec::new().flags(["--drain", "1"]);
    let gate = Gate::new(&run.dir().join("gate"));
    let mut running = run.shell("echo $$; read wait < $DIR/gate; exec head -c 2200000 /dev/zero");
    let held = format!("/proc/{}/fd/1", running.line());
    let held = std::fs::OpenOptions::new().write(true).open(held).unwrap();
    gate.open();
    running.wait_for_error("gave up reading output");
    let ended = running.end();
    drop(held);
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 2_200_000), "{}", ended.stderr);
}

/// The streams are independent, as without the agent.
#[test]
fn stuck_stdout_does_not_delay_stderr() {
    let code = "
import os, select, sys, time
os.set_blocking(1, False)
while select.select([], [1], [], 0.5)[1]:
    os.write(1, bytes(60000))
print('nobody takes any more', file=sys.stderr, flush=True)
late = time.monotonic() + 20
while not os.path.exists(sys.argv[1]):
    if time.monotonic() > late: sys.exit('nobody heard it')
    time.sleep(0.01)";
    let run = Exec::new().log_to("log");
    let heard = run.dir().join("heard");
    let mut running = run.python(code, &[heard.to_str().unwrap()]);
    running.wait_for_error("nobody takes any more");
    std::fs::write(&heard, "").unwrap();
    let (ended, dir) = running.end_in_folder();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.len() > 2 << 20, "{} bytes", ended.stdout.len());
    assert_eq!(logged(dir.path(), "log").0, ended.stdout);
}

/// The number is exact except for the chunk that is being written.
#[test]
fn term_with_unread_output_reports_the_byte_count() {
    for logs in [false, true] {
        let run = if logs { Exec::new().log_to("log") } else { Exec::new() };
        let mut running = run.shell("echo $$; exec head -c 1000000 /dev/zero");
        let command = format!("/proc/{}", running.line());
        until("the command has ended", || !Path::new(&command).exists());
        if logs {
            let log = running.dir().join("log/stdout");
            until("all is logged", || !std::fs::metadata(&log).is_ok_and(|it| it.len() <= 1_000_000));
        }
        // Two equal signals might be merged into one.
        running.signal(Signal::SIGTERM);
        running.signal(Signal::SIGINT);
        running.wait_for_error("bytes of its stdout were not written: nobody read them");
        let (ended, dir) = running.end_in_folder();
        let lost = 1_000_000 - ended.stdout.len();
        if logs {
            assert_eq!((ended.code, ended.outcome["reason"].as_str()), (Some(0), Some("succeeded")));
            let (stdout, ..) = logged(dir.path(), "log");
            assert!(lost > 0 && stdout.len() > 1_000_000, "the log has all of it");
            continue;
        }
        assert_eq!(ended.code, Some(65));
        let message = ended.outcome["message"].as_str().unwrap();
        let reported: usize = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(lost > 0 && (lost..=lost + (64 << 10)).contains(&reported), "{lost}: {message}");
    }
}

/// A file size limit acts as a disk that stays full. Without signals the agent would retry for half a minute.
#[test]
fn unwritable_log_fails_a_successful_command() {
    let limited = ["env", "--default-signal", "sh", "-c", "ulimit -f 100; exec \"$0\" \"$@\""];
    // No more than a pipe holds, so that nothing waits for a reader.
    let mut running = Exec::within(&limited).log_to("log").shell("echo $$; exec head -c 60000 /dev/zero");
    let command = format!("/proc/{}", running.line());
    until("the command has ended", || !Path::new(&command).exists());
    running.wait_for_error("cannot write the log");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!(
        (ended.code, &ended.outcome["reason"]),
        (Some(65), &"agent_failed".into()),
        "{}",
        ended.stderr
    );
    let message = ended.outcome["message"].as_str().unwrap();
    assert!(message.contains("bytes of its output are not in the log: File too large"), "{message}");
    let missing: usize = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((1..60_010).contains(&missing), "{message}");
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
    assert_eq!(ended.stdout.len(), 60_000);
}

/// With `--when-full drop`, also if stdout is what is full.
#[test]
fn stuck_reader_does_not_block_a_command_with_policy_drop() {
    let run = Exec::new().flags(["--when-full", "drop"]);
    let mut running = run.shell("head -c 10000000 /dev/zero; echo went on >&2");
    running.wait_for_error("went on");
    running.wait_for_error("bytes of its stdout were not written: nobody read them");
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.outcome);
    assert!(ended.stdout.len() < 10_000_000);
}

/// As without an agent.
#[test]
fn closed_stdout_ends_the_command_with_sigpipe() {
    let mut running = Exec::new().start(&["yes"]);
    assert_eq!(running.line(), "y");
    let ended = running.close_stdout();
    assert_eq!(ended.code, Some(128 + Signal::SIGPIPE as i32));
}
