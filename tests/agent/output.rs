//! What a command prints.

use std::path::Path;

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Exec, logged};
use sqlflow_tests::gate::Gate;
use sqlflow_tests::python;
use sqlflow_tests::server::program;
use sqlflow_tests::until::until;

const MIB: u64 = 1 << 20;

/// A#1259: Python holds lines back unless it is told not to. The line is read while the program waits for it.
#[test]
fn a_line_arrives_as_it_is_printed() {
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
fn who_wants_buffers_has_them() {
    let ended = Exec::new().env("PYTHONUNBUFFERED", "").shell("echo \"<$PYTHONUNBUFFERED>\"").end();
    assert_eq!(ended.stdout, b"<>\n");
}

/// AF#63173: any bytes, and a character that is cut by two writes.
#[test]
fn bytes_that_are_no_text_do_no_harm_and_are_kept() {
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
    // Offsets are those of the stream, without a hole.
    let mut offset = 0;
    for output in records.iter().map(|it| &it["output"]).filter(|it| it["stream"] == "stdout") {
        assert_eq!(output["offset"].as_u64(), Some(offset));
        offset += output["bytes"].as_u64().unwrap();
    }
    assert_eq!(offset, 4 + 5 * MIB);
}

/// What a shell hands on, an argument of any bytes too.
#[test]
fn an_argument_that_is_no_text_arrives_as_it_is() {
    let agent = program("sqlflow-agent");
    let inner = "\"$AGENT\" exec -- printf %s \"$(printf 'caf\\351')\"";
    let ended = Exec::new().env("AGENT", agent.to_str().unwrap()).shell(inner).end();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"caf\xe9"[..]), "{}", ended.stderr);
}

/// moby#13333: a line without end, and then one more.
#[test]
fn a_line_of_a_hundred_megabytes_is_only_bytes() {
    let script =
        "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo later; echo ready >&2; read wait < $DIR/gate";
    let run = Exec::shipped().log_to("log").flags(["--tee", "none"]);
    let gate = Gate::new(&run.dir().join("gate"));
    let running = run.shell(script);
    // Opens once the command has printed everything.
    gate.open();
    let peak = running.memory_peak();
    let (ended, dir) = running.end_in_folder();
    assert_eq!(ended.code, Some(0));
    let (stdout, _, _) = logged(dir.path(), "log");
    assert_eq!(stdout.len(), 104_857_600 + 1 + 6);
    assert!(stdout.ends_with(b"x\nlater\n"));
    assert!(peak > 0 && peak < 64 * MIB, "the agent used {peak} bytes");
}

/// A#7671: progress bars show while the program runs, and the last state is kept.
#[test]
fn progress_without_a_newline_is_seen_at_once() {
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

/// A#7671: and there a bar that stands still is seen too, while the program waits.
#[test]
fn a_progress_bar_that_stands_is_seen_by_those_who_read_lines() {
    let run = Exec::new().flags(["--tee", "lines"]);
    let gate = Gate::new(&run.dir().join("gate"));
    let mut running = run.shell("printf '\\r 10%%'; read wait < $DIR/gate; printf '\\r100%%'");
    assert_eq!(running.line(), " 10%");
    gate.open();
    assert_eq!(running.end().stdout, b"100%\n");
}

/// A#7671: in a container's log, which is read line by line, a bar is a line a second, and its last state is there. The
/// log itself keeps every byte.
#[test]
fn a_progress_bar_becomes_lines_for_those_who_read_lines() {
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

/// Order between the streams is kept as far as two pipes allow: what was read before the next was written. The command
/// here asks the kernel how much of its last write waits in the pipe.
#[test]
fn what_is_printed_one_after_the_other_stays_in_order() {
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

/// The agent with its stdout there.
fn into(file: &str) -> Exec {
    let script = format!("exec \"$0\" \"$@\" > {file}");
    Exec::within(&["env", "--default-signal", "sh", "-c", &script])
}

/// A disk without space is no reader that went away.
#[test]
fn output_that_meets_a_full_disk_is_told_and_the_command_goes_on() {
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

/// Who shares our stdout, as a terminal's other programs do, may have made it non-blocking.
#[test]
fn a_non_blocking_stdout_is_waited_for() {
    let python = python::program();
    let code = "import os, sys; os.set_blocking(1, False); os.execv(sys.argv[1], sys.argv[1:])";
    let run = Exec::within(&["env", "--default-signal", python.to_str().unwrap(), "-c", code]);
    let mut running = run.shell("head -c 1000000 /dev/zero; echo printed >&2");
    // Its queue holds all, and a pipe does not: nobody reads before the command has ended.
    running.wait_for_error("printed");
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 1_000_000), "{}", ended.stderr);
}

/// More than the agent's queue holds, and not more than what the command's pipe holds beside that. Somebody else keeps the
/// pipe open, so that the drain runs out, and is seen to.
#[test]
fn a_slow_reader_is_waited_for_after_the_drain_too() {
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

/// The streams are a command's own two, as without the agent: who reads one slowly does not hold up the other.
#[test]
fn a_stuck_stdout_holds_up_no_stderr() {
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

/// The number is exact but for the piece that is being written.
#[test]
fn what_nobody_reads_is_counted_when_the_agent_is_told_to_leave() {
    for logs in [false, true] {
        let run = if logs { Exec::new().log_to("log") } else { Exec::new() };
        let mut running = run.shell("echo $$; exec head -c 1000000 /dev/zero");
        let command = format!("/proc/{}", running.line());
        until("the command has ended", || !Path::new(&command).exists());
        if logs {
            let log = running.dir().join("log/stdout");
            until("all is logged", || !std::fs::metadata(&log).is_ok_and(|it| it.len() <= 1_000_000));
        }
        // Two of a kind might become one.
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
        let told: usize = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(lost > 0 && (lost..=lost + (64 << 10)).contains(&told), "{lost}: {message}");
    }
}

/// A file size limit is a disk that stays full. The log would be waited for half a minute.
#[test]
fn a_log_that_cannot_be_written_is_no_success() {
    let limited = ["env", "--default-signal", "sh", "-c", "ulimit -f 100; exec \"$0\" \"$@\""];
    // What a pipe holds, so that nothing waits for a reader.
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

/// What `--when-full drop` promises where stdout is what is full.
#[test]
fn a_stuck_reader_does_not_hold_up_a_command_whose_output_may_be_dropped() {
    let run = Exec::new().flags(["--when-full", "drop"]);
    let mut running = run.shell("head -c 10000000 /dev/zero; echo went on >&2");
    running.wait_for_error("went on");
    running.wait_for_error("bytes of its stdout were not written: nobody read them");
    let ended = running.end();
    assert_eq!((ended.code, &ended.outcome["reason"]), (Some(0), &"succeeded".into()), "{}", ended.outcome);
    assert!(ended.stdout.len() < 10_000_000);
}

/// A reader that goes away is the command's own affair, as without an agent.
#[test]
fn who_closes_the_output_ends_the_command_as_ever() {
    let mut running = Exec::new().start(&["yes"]);
    assert_eq!(running.line(), "y");
    let ended = running.close_stdout();
    assert_eq!(ended.code, Some(128 + Signal::SIGPIPE as i32));
}
