//! What a command prints.

use nix::sys::signal::Signal;
use sqlflow_tests::agent::{Exec, logged};

const MIB: u64 = 1 << 20;

/// A#1259: Python holds lines back unless it is told not to. The line is read while the program waits for it.
#[test]
fn a_line_arrives_as_it_is_printed() {
    let code =
        "import os, sys; print('first'); os.mkfifo(sys.argv[1]); open(sys.argv[1]).read(); print('second')";
    let run = Exec::new();
    let gate = run.dir().join("gate");
    let mut running = run.python(code, &[gate.to_str().unwrap()]);
    assert_eq!(running.line(), "first");
    while !gate.exists() {
        std::thread::yield_now();
    }
    std::fs::write(&gate, "go\n").unwrap();
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
    assert!(stdout == ended.stdout, "the mirror and the log differ");
    // Offsets are those of the stream, without a hole.
    let mut offset = 0;
    for output in records.iter().map(|it| &it["output"]).filter(|it| it["stream"] == "stdout") {
        assert_eq!(output["offset"].as_u64(), Some(offset));
        offset += output["bytes"].as_u64().unwrap();
    }
    assert_eq!(offset, 4 + 5 * MIB);
}

/// moby#13333: a line without end, and then one more.
#[test]
fn a_line_of_a_hundred_megabytes_is_only_bytes() {
    let script =
        "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo later; echo ready >&2; read wait < $DIR/gate";
    let run = Exec::shipped().log_to("log").flags(["--mirror", "none"]);
    let gate = run.dir().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let running = run.shell(script);
    // Opens once the command has printed everything.
    std::fs::write(&gate, "go\n").unwrap();
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
    let gate = run.dir().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let log = run.dir().join("log/stdout");
    let running = run.shell("printf '\\r 10%%'; read wait < $DIR/gate; printf '\\r100%%'");
    let mut seen = String::new();
    while seen != "\r 10%" {
        seen.clear();
        if let Ok(mut file) = std::fs::File::open(&log) {
            file.read_to_string(&mut seen).unwrap();
        }
    }
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(running.end().stdout, b"\r 10%\r100%");
}

/// A#7671: and there a bar that stands still is seen too, while the program waits.
#[test]
fn a_progress_bar_that_stands_is_seen_by_those_who_read_lines() {
    let run = Exec::new().flags(["--mirror", "lines"]);
    let gate = run.dir().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut running = run.shell("printf '\\r 10%%'; read wait < $DIR/gate; printf '\\r100%%'");
    assert_eq!(running.line(), " 10%");
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(running.end().stdout, b"100%\n");
}

/// A#7671: in a container's log, which is read line by line, a bar is a line a second, and its last state is there. The
/// log itself keeps every byte.
#[test]
fn a_progress_bar_becomes_lines_for_those_who_read_lines() {
    let script = "i=0; while [ $i -lt 1000 ]; do printf '\\r%d' $i; i=$((i+1)); done; printf '\\nend\\n'";
    let (ended, dir) = Exec::new().log_to("log").flags(["--mirror", "lines"]).shell(script).end_in_folder();
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

/// A reader that goes away is the command's own affair, as without an agent.
#[test]
fn who_closes_the_output_ends_the_command_as_ever() {
    let mut running = Exec::new().start(&["yes"]);
    assert_eq!(running.line(), "y");
    let ended = running.close_stdout();
    assert_eq!(ended.code, Some(128 + Signal::SIGPIPE as i32));
}
