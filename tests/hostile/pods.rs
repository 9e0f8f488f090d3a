//! What principals may choose for their Pods. The cluster is never reached.

use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{Request, Session};
use sqlflow_tests::access::{Tokens, certificates};
use sqlflow_tests::server::Setup;
use tonic::Code;
use tonic::transport::Endpoint;

const CLUSTER: &str = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";

/// An image runs with the service account, the volumes and the storage credentials of its Pod.
#[tokio::test(flavor = "multi_thread")]
async fn image_of_a_pod_is_chosen_by_its_users_only() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, CLUSTER).unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tokens = Tokens::at(dir.path(), &["ana", "bob", "op"]);
    let server = |image_users: &str| {
        let flags = [
            tokens.flag(),
            "--admin=token:op".to_owned(),
            "--launcher=kubernetes".to_owned(),
            "--pod-namespace=none".to_owned(),
            "--agent-listen=127.0.0.1:0".to_owned(),
            "--agent-url=https://127.0.0.1:1".to_owned(),
            format!("--agent-cert={}", file("server.crt")),
            format!("--agent-key={}", file("server.key")),
            "--pod-image=submitter:1".to_owned(),
            "--pod-attributes=cpu,image".to_owned(),
            format!("--pod-image-users={image_users}"),
            "--models=s3://nowhere/models".to_owned(),
        ];
        let setup = Setup::new(dir.path(), "sqlite:///tmp/own.db".to_owned())
            .env("KUBECONFIG", kubeconfig.display().to_string());
        flags.into_iter().fold(setup, Setup::flag).start().unwrap()
    };
    let attributes = ["pod.image = \"mine:1\"", "pod.cpu = 1"];
    for (image_users, may) in [("token:ana", [true, false, true]), ("token:nobody", [false, false, true])] {
        let server = server(image_users);
        for (user, may) in ["ana", "bob", "op"].into_iter().zip(may) {
            let channel = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
            let channel = channel.connect().await.unwrap();
            let mut client = SqlFlowClient::with_interceptor(channel, tokens.interceptor(user));
            for attribute in attributes {
                let sql = format!(
                    "SELECT 1 AS a, 1 AS class TO TRAIN xgboost.gbtree WITH {attribute} LABEL class INTO m;"
                );
                let request = Request { sql, session: Some(Session::default()), ..Request::default() };
                let answer = client.run(request).await;
                if may || attribute == attributes[1] {
                    answer.unwrap();
                    continue;
                }
                let refused = answer.unwrap_err();
                assert_eq!(refused.code(), Code::PermissionDenied, "{user}: {refused:?}");
                let remedy = format!("--pod-image-users token:{user}");
                assert!(refused.message().contains(&remedy), "{refused:?}");
            }
        }
    }
}
