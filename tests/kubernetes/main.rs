//! Jobs in Pods of a real cluster. Each test has a namespace that enforces the *restricted* Pod Security Standard. A
//! test names the public report that it answers (A: argo-workflows, AF: airflow, K: kubernetes, SF: sqlflow).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod certificates;
mod deaths;
mod disk;
mod docs_manifests;
mod identity;
mod jobs;
mod manifests;
mod network;
mod node;
mod outages;
mod pending;
mod publish_after_failure;
mod published_clients;
mod sidecar;
mod traces;
mod without_server;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::client::Ended;

/// DSN for Pods that need no data: an empty database of their own.
const SQLITE: &str = "sqlite:///tmp/own.db?mode=rwc";

/// All texts of a job: output, messages, and the final status.
fn said(ended: &Ended) -> String {
    let mut text = ended.status.message.clone();
    for payload in ended.payloads() {
        match payload {
            Payload::Log(chunk) => text.push_str(&String::from_utf8_lossy(&chunk.data)),
            Payload::Message(message) => text.push_str(&message.message),
            _ => {}
        }
        text.push('\n');
    }
    text
}
