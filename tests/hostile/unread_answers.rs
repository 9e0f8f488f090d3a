//! Clients that call and do not read: what the server holds for them is bounded.

use std::time::Duration;

use prost::Message as _;
use sqlflow_proto::v1::Token;
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::stand_in;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const MIB: u64 = 1 << 20;
/// Calls whose answers nobody reads. A page has 2 MiB.
const CALLS: usize = 200;

async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A Fetch whose answer is read as far as its headers.
async fn unread(channel: Channel, token: Token) -> Result<impl Sized, Code> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::once(token.encode_to_vec()));
    request.set_timeout(Duration::from_secs(4));
    let path = "/sqlflow.v1.SQLFlow/Fetch".parse().unwrap();
    client.streaming(request, path, Raw).await.map_err(|refused| refused.code())
}

/// 200 pages took 400 MiB, and each connection may have a thousand calls.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_reads_take_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let code = "import sys\nsys.stdout.write('x' * (4 << 20))";
    // What is freed is no longer resident: this measures what answers hold.
    let server =
        stand_in::setup(dir.path(), code, None).env("MALLOC_MMAP_THRESHOLD_", "131072").start().unwrap();
    let mut client = server.client().await.unwrap();
    let job = client.run(stand_in::STEP).await.unwrap();
    let length = client.follow(&job).await.unwrap().log().len();
    assert!(length >= 4 << 20, "{length}");

    let before = server.memory_peak();
    let greedy = channel(&server.address).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(unread(greedy.clone(), job.clone()));
    }
    let answers = calls.join_all().await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Code::ResourceExhausted))).count();
    let open: Vec<_> = answers.into_iter().flatten().collect();
    let grown = server.memory_peak().saturating_sub(before) / MIB;
    println!("{} open, {refused} refused, {grown} MiB", open.len());
    assert_eq!(refused + open.len(), CALLS);
    assert!(open.len() >= 32, "64 MiB of pages");
    assert!(grown < 160, "{grown} MiB");

    // Its owner reads again once they are gone.
    drop((open, greedy));
    client.follow(&job).await.unwrap().expect_success();
}
