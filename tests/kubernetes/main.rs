//! Jobs whose submitters are Pods of a real cluster. Each test has a namespace of its own, in which the *restricted* Pod
//! Security Standard is enforced. Numbers are lines of the list of public reports (A: argo-workflows, AF: airflow, K:
//! kubernetes, SF: sqlflow).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod certificates;
mod deaths;
mod docs_manifests;
mod identity;
mod jobs;
mod manifests;
mod node;
mod outages;
mod pending;
mod publish_after_failure;
mod traces;
mod without_server;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::client::Ended;

/// Data for Pods that need none: a file of their own.
const SQLITE: &str = "sqlite:///tmp/own.db";

/// What a job said: output, notices, and the end.
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
