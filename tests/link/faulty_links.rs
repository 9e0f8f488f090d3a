//! Much output over links with faults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlflow_tests::proxy::Proxy;
use sqlflow_tests::python;
use sqlflow_tests::relay::{Fault, Relay};
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{self, PIECES, STEP};

use super::reading::Reading;

const SEED: u64 = 23497;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A step that prints this many megabytes.
fn printing(dir: &Path, address: &Path, megabytes: u64) -> Setup {
    let code = format!(
        "{PIECES}\nimport sys\nfor piece in pieces({SEED}, {megabytes}): sys.stdout.buffer.write(piece)"
    );
    stand_in::setup(dir, &code, Some(address)).flag("--retain-output=8GiB")
}

fn expected_sha256(megabytes: u64) -> String {
    let code = format!(
        "{PIECES}\nimport hashlib\nh = hashlib.sha256()\nfor piece in pieces({SEED}, {megabytes}): h.update(piece)\nprint(h.hexdigest())"
    );
    python::run(&code, &[]).unwrap().trim().to_owned()
}

struct World {
    dir: tempfile::TempDir,
    address: PathBuf,
    server: PathBuf,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (address, server) = (dir.path().join("proxy.sock"), dir.path().join("state/agent.sock"));
    World { dir, address, server }
}

/// AF#23497, AF#11324, AF#33498: the link is cut periodically and the server killed twice. `make drill` sends a
/// gigabyte with a cut every 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn every_byte_arrives_once_despite_cut_links_and_killed_servers() {
    let megabytes = setting("SQLFLOW_DRILL_MIB", 96);
    let period = Duration::from_millis(setting("SQLFLOW_DRILL_CUT_MS", 200));
    let World { dir, address, server: socket } = world();
    let proxy = Proxy::listen(&address, &socket);
    let setup = printing(dir.path(), &address, megabytes);
    let mut server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);

    let cutting = async {
        let mut cuts = 0;
        loop {
            tokio::time::sleep(period).await;
            proxy.cut();
            cuts += 1;
            report(cuts, proxy.passed());
        }
    };
    let following = async {
        for part in [1, 2] {
            reading.until(&mut client, |it| it.is_over() || it.length >= (megabytes << 20) * part / 3).await;
            assert!(!reading.is_over(), "{:?}", reading.status);
            server.kill();
            server = setup.start().unwrap();
            client = server.client().await.unwrap();
        }
        reading.until(&mut client, Reading::is_over).await;
    };
    tokio::select! {
        () = cutting => {}
        () = following => {}
    }
    assert_eq!(reading.status.code(), sqlflow_proto::v1::job_status::Code::Succeeded, "{:?}", reading.status);
    assert_eq!((reading.length, reading.gaps), (megabytes << 20, 0));
    assert_eq!(reading.sha256(), expected_sha256(megabytes));
    assert!(proxy.connections() > 5, "{} connections", proxy.connections());
}

#[expect(clippy::print_stderr, reason = "progress of the long drill")]
fn report(cuts: u64, passed: u64) {
    eprintln!("cut {cuts}, {} MiB passed", passed >> 20);
}

async fn expect_all_output(setup: &Setup, megabytes: u64) {
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);
    reading.until(&mut client, Reading::is_over).await;
    assert_eq!(reading.status.code(), sqlflow_proto::v1::job_status::Code::Succeeded, "{:?}", reading.status);
    assert_eq!((reading.length, reading.gaps), (megabytes << 20, 0));
    assert_eq!(reading.sha256(), expected_sha256(megabytes));
}

/// AF#33498
#[tokio::test(flavor = "multi_thread")]
async fn duplicated_batches_are_stored_once() {
    expect_all_output_despite(Fault::Duplicate).await;
}

/// AF#33498
#[tokio::test(flavor = "multi_thread")]
async fn reordered_batches_are_stored_in_order() {
    expect_all_output_despite(Fault::Reorder).await;
}

/// AF#33498
#[tokio::test(flavor = "multi_thread")]
async fn replayed_batch_of_an_earlier_stream_is_dropped() {
    expect_all_output_despite(Fault::Replay).await;
}

async fn expect_all_output_despite(fault: Fault) {
    let World { dir, address, server } = world();
    let relay = Relay::listen(&address, &server, fault);
    expect_all_output(&printing(dir.path(), &address, 32), 32).await;
    assert!(relay.done() > 0, "the relay injected no fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_link_loses_no_output() {
    let World { dir, address, server } = world();
    let proxy = Proxy::listen(&address, &server);
    proxy.set(|faults| faults.delay = Duration::from_millis(20));
    expect_all_output(&printing(dir.path(), &address, 4), 4).await;
}

/// Output from a server outage, on a link that needs 38 s for it. Heartbeats still arrive in time, and the agent keeps
/// its stream.
#[tokio::test(flavor = "multi_thread")]
async fn backlog_on_a_slow_link_does_not_delay_heartbeats() {
    let World { dir, address, server: socket } = world();
    let proxy = Proxy::listen(&address, &socket);
    // Random bytes cannot be compressed.
    let burst = format!("{PIECES}\nburst = next(pieces({SEED}, 1))[:600 << 10]");
    let code = format!(
        "{burst}
import os, sys, time
here = sys.argv[1]
print('up')
while not os.path.exists(here + '/go'): time.sleep(0.01)
sys.stdout.buffer.write(burst)
open(here + '/printed', 'w')"
    );
    let server = stand_in::setup(dir.path(), &code, Some(&address)).start().unwrap();
    let mut client = server.client().await.unwrap();
    let mut reading = Reading::of(&client.run(STEP).await.unwrap());
    reading.until(&mut client, |it| it.says("up\n")).await;
    proxy.set(|faults| faults.is_half_open = true);
    proxy.cut();
    std::fs::write(dir.path().join("go"), "").unwrap();
    while !dir.path().join("printed").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.set(|faults| (faults.is_half_open, faults.rate) = (false, Some(16 << 10)));
    proxy.cut();
    let before = proxy.connections();
    let is_silent = |it: &Reading| it.messages.iter().any(|said| said.contains("no word from the agent"));
    let again = || proxy.connections() > before + 1;
    reading.until(&mut client, |it| it.is_over() || is_silent(it) || again()).await;
    assert!(!again(), "the link was given up: {:?}", reading.messages);
    assert!(!is_silent(&reading), "{:?} after {} bytes", reading.messages, reading.length);
    assert_eq!(reading.status.code(), sqlflow_proto::v1::job_status::Code::Succeeded, "{:?}", reading.status);
    let sha256 = python::run(
        &format!("{burst}\nimport hashlib\nprint(hashlib.sha256(b'up\\n' + burst).hexdigest())"),
        &[],
    );
    assert_eq!((reading.length, reading.gaps), (3 + (600 << 10), 0));
    assert_eq!(reading.sha256(), sha256.unwrap().trim());
}

/// If the link is slower than compression, text is compressed.
#[tokio::test(flavor = "multi_thread")]
async fn text_on_a_slow_link_is_compressed() {
    let World { dir, address, server } = world();
    let proxy = Proxy::listen(&address, &server);
    proxy.set(|faults| faults.delay = Duration::from_millis(20));
    let code =
        "import sys\nfor i in range(400_000): sys.stdout.write(f'step {i}: loss 0.{i:07}, and so on\\n')";
    let setup = stand_in::setup(dir.path(), code, Some(&address));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let mut reading = Reading::of(&token);
    reading.until(&mut client, Reading::is_over).await;
    let expected: u64 =
        (0..400_000).map(|i: u64| format!("step {i}: loss 0.{i:07}, and so on\n").len() as u64).sum();
    assert_eq!((reading.length, reading.gaps), (expected, 0));
    assert!(reading.says("step 399999: loss 0.0399999, and so on\n"));
    assert!(proxy.passed() < expected / 2, "{} bytes on the wire for {expected}", proxy.passed());
}

/// The other end of the link is gone without a FIN. The agent notices, and attaches again.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_link_is_replaced() {
    let World { dir, address, server: socket } = world();
    let proxy = Proxy::listen(&address, &socket);
    let code = format!(
        "{PIECES}\nimport sys\nfor piece in pieces({SEED}, 8): sys.stdout.buffer.write(piece)\nprint('end')"
    );
    let setup = stand_in::setup(dir.path(), &code, Some(&address));
    proxy.set(|faults| faults.is_half_open = true);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    while proxy.connections() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.set(|faults| faults.is_half_open = false);
    let mut reading = Reading::of(&token);
    reading.until(&mut client, Reading::is_over).await;
    assert!(proxy.connections() >= 2);
    assert_eq!(reading.length, (8 << 20) + 4);
    assert!(reading.says("end\n"));
}
