//! Output can be read while the program runs.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::gate::Gate;
use sqlflow_tests::stand_in::{self, STEP};

use super::reading::Reading;

/// `wait()` returns when the test opens the gate.
///
/// An end of file does not open it: the previous writer may still be open when the program reaches the gate again (the
/// test closes it later, or has just forked). Its close is then all that is read.
const GATE: &str = "
import os, sys, signal
GATE = sys.argv[1] + '/gate'
def wait():
    line = ''
    while not line:
        with open(GATE) as gate: line = gate.readline()
";

async fn started(
    code: &str,
) -> (tempfile::TempDir, sqlflow_tests::server::Server, sqlflow_tests::client::Client, Reading) {
    let dir = tempfile::tempdir().unwrap();
    let _gate = Gate::new(&dir.path().join("gate"));
    let server =
        stand_in::setup(dir.path(), &format!("{GATE}{code}"), None).flag("--grace=1s").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    (dir, server, client, Reading::of(&token))
}

async fn go(dir: &tempfile::TempDir) {
    let gate = Gate::at(&dir.path().join("gate"));
    tokio::task::spawn_blocking(move || gate.open()).await.unwrap();
}

/// SF#1572, SF#1382: the program waits after every thousandth line until the test has read it.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_lines_arrive_once_while_the_program_runs() {
    let code = "
for i in range(1, 10_001):
    print('line', i)
    if i % 1000 == 0: wait()
";
    let (dir, _server, mut client, mut reading) = started(code).await;
    for thousand in 1..=10 {
        // The program waits until this line was read.
        reading.until(&mut client, |it| it.says(&format!("line {thousand}000\n"))).await;
        assert!(!reading.is_over());
        go(&dir).await;
    }
    reading.until(&mut client, Reading::is_over).await;
    let expected: String = (1..=10_000).map(|i| format!("line {i}\n")).collect();
    assert_eq!((reading.length, reading.gaps), (expected.len() as u64, 0));
    let tail = reading.tail.len();
    assert!(expected.as_bytes()[expected.len() - tail..] == reading.tail, "lines are missing or duplicated");
}

/// A#7671
#[tokio::test(flavor = "multi_thread")]
async fn progress_bar_is_delivered_before_its_line_ends() {
    let code = "
for percent in (10, 50, 100):
    sys.stdout.write(f'\\r{percent:3}%'); sys.stdout.flush(); wait()
";
    let (dir, _server, mut client, mut reading) = started(code).await;
    for percent in ["\r 10%", "\r 50%", "\r100%"] {
        reading.until(&mut client, |it| it.says(percent)).await;
        go(&dir).await;
    }
    reading.until(&mut client, Reading::is_over).await;
    assert_eq!(reading.tail, b"\r 10%\r 50%\r100%");
}

/// T#3051, T#5251: the program ignores TERM and is killed; its last output is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn output_after_a_cancel_can_be_fetched() {
    let code = "
signal.signal(signal.SIGTERM, lambda *_: print('got TERM'))
print('up')
while True: signal.pause()
";
    let (_dir, _server, mut client, mut reading) = started(code).await;
    reading.until(&mut client, |it| it.says("up\n")).await;
    client.api.cancel(reading.cursor.clone()).await.unwrap();
    reading.until(&mut client, Reading::is_over).await;
    assert_eq!(reading.status.code(), Code::Failed);
    assert!(reading.says("got TERM\n"), "{:?}", String::from_utf8_lossy(&reading.tail));
}

/// moby#13333, end to end: a line of 20 MB, followed by a short one.
#[tokio::test(flavor = "multi_thread")]
async fn line_of_20_mb_is_delivered() {
    let code = "
for _ in range(20): sys.stdout.write('x' * 1_000_000)
print(); print('later')
";
    let (_dir, _server, mut client, mut reading) = started(code).await;
    reading.until(&mut client, Reading::is_over).await;
    assert_eq!((reading.length, reading.says("x\nlater\n")), (20_000_007, true));
}

/// AF#63173, end to end: a character split over two writes, and arbitrary bytes.
#[tokio::test(flavor = "multi_thread")]
async fn split_and_invalid_utf8_is_delivered_unchanged() {
    let code = "
os.write(1, b'\\xf0\\x9f'); wait(); os.write(1, b'\\xa6\\x80'); os.write(1, bytes(range(256)))
";
    let (dir, _server, mut client, mut reading) = started(code).await;
    reading.until(&mut client, |it| it.length == 2).await;
    go(&dir).await;
    reading.until(&mut client, Reading::is_over).await;
    assert_eq!(reading.status.code(), Code::Succeeded);
    let mut expected = "🦀".as_bytes().to_vec();
    expected[2..].copy_from_slice(b"\xa6\x80");
    expected.extend(0..=255);
    assert_eq!(reading.tail, expected);
}
