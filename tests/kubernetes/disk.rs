//! Pods that write more to the disk of their node than they may. The kubelet measures it every few seconds.

use sqlflow_proto::v1::Cause;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::client::Ended;
use sqlflow_tests::cluster::Namespace;

use crate::{SQLITE, said};

/// Asserts that a job failed because its Pod was evicted for this limit, and that no attempt followed.
fn expect_evicted(ended: &Ended, limit: &str) {
    assert_eq!(ended.status.code(), Code::Failed);
    let message = &ended.status.message;
    let fix = "write less, or raise the limit in the Pod template (--pod-template)";
    for words in ["it wrote more to the disk of its node than it may", limit, fix] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!said(ended).contains("(attempt 2)"), "{}", said(ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_that_fills_tmp_is_evicted_with_the_limit_in_the_message() {
    let namespace = Namespace::new("full-tmp");
    let template = "spec: {volumes: [{name: sqlflow-tmp, emptyDir: {sizeLimit: 16Mi}}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    // The database is in /tmp.
    let program = format!("CREATE TABLE filler AS SELECT randomblob(64000000) AS b; {ENDLESS}");
    let token = client.run(program).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    expect_evicted(&ended, r#"EmptyDir volume "sqlflow-tmp" exceeds the limit "16Mi""#);
}

/// Only a query had started, which another attempt could repeat. It would fill the disk as well.
#[tokio::test(flavor = "multi_thread")]
async fn pod_over_its_ephemeral_storage_is_evicted_and_not_retried() {
    let namespace = Namespace::new("full-disk");
    let template = "spec: {containers: [{name: submitter, resources: {limits: {ephemeral-storage: 96Mi}}}]}";
    let server = namespace.setup(SQLITE, template).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(ENDLESS).await.unwrap();
    let pod = namespace.running_pod();
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    let fill = "open('/tmp/filler', 'wb').write(bytes(128 << 20))";
    namespace.kubectl(&["exec", pod["metadata"]["name"].as_str().unwrap(), "--", "python3", "-c", fill]);
    let ended = client.follow(&token).await.unwrap();
    expect_evicted(&ended, "exceeds the total limit of containers 96Mi");
    assert_eq!(ended.status.cause(), Cause::Lost, "{:?}", ended.status);
    namespace.wait_for("an empty namespace", || namespace.pods().is_empty());
}
