//! The audit log of a real server.

use std::path::Path;

use serde_json::Value;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{GetJobRequest, ListJobsRequest, Request, Session, Token, get_job_request::By};
use sqlflow_tests::access::{Bearer, Tokens};
use sqlflow_tests::http::{self, get_as_bearer, path_of};
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::until::until;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// The fields of its lines so far, of a server whose state is in this folder.
pub(super) fn lines(dir: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(dir.join("state/server.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|it| it["target"] == "audit").map(|mut it| it["fields"].take()).collect()
}

async fn client(server: &Server, bearer: Bearer) -> SqlFlowClient<InterceptedService<Channel, Bearer>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    SqlFlowClient::with_interceptor(endpoint.connect().await.unwrap(), bearer)
}

/// Number of requests that lines with these fields count.
fn counted(dir: &Path, fields: &[(&str, &str)]) -> u64 {
    let lines = lines(dir);
    let are = lines.iter().filter(|line| fields.iter().all(|(name, value)| line[name] == *value));
    are.map(|line| line["count"].as_u64().unwrap_or(1)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_has_actions_rights_and_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let tokens = Tokens::at(dir, &["ana", "bob"]);
    let setup = Setup::new(dir, format!("sqlite:///{}/x.db", dir.display()));
    let server = setup.flag(tokens.flag()).start().unwrap();
    let mut ana = client(&server, tokens.interceptor("ana")).await;
    let mut bob = client(&server, tokens.interceptor("bob")).await;
    let program =
        Request { sql: "SELECT 1".to_owned(), session: Some(Session::default()), ..Request::default() };
    let job = ana.run(program).await.unwrap().into_inner();
    let id = job.job_id.as_str();
    let of_ana = GetJobRequest { by: Some(By::JobId(id.to_owned())) };
    ana.get_job(of_ana).await.unwrap();
    bob.get_job(GetJobRequest { by: Some(By::Token(job.token.clone())) }).await.unwrap();
    bob.list_jobs(ListJobsRequest::default()).await.unwrap();
    bob.cancel(Token { token: job.token.clone(), ..Token::default() }).await.unwrap();
    let link = path_of(&job.job_tracer_url);
    assert_eq!(http::get(&server.http, link).code, 200);
    assert_eq!(get_as_bearer(&server.http, link, tokens.of("ana")).code, 200);
    assert_eq!(get_as_bearer(&server.http, "/jobs", tokens.of("ana")).code, 200);
    let page = link.split('?').next().unwrap();
    assert_eq!(http::post(&server.http, page, &format!("token={}", job.token)).code, 303);
    for (principal, action, right, via) in [
        ("token:ana", "run", "identity", "api"),
        ("token:ana", "read", "identity", "api"),
        ("token:bob", "read", "token", "api"),
        ("token:bob", "list", "identity", "api"),
        ("token:bob", "cancel", "token", "api"),
        ("unix:root", "read", "link", "page"),
        ("token:ana", "read", "identity", "page"),
        ("token:ana", "list", "identity", "page"),
        ("unix:root", "read", "token", "page"),
    ] {
        let fields = [("principal", principal), ("action", action), ("right", right), ("via", via)];
        until(&format!("there is {fields:?}"), || counted(dir, &fields) == 1);
    }

    // A flood has few lines, which count all of it.
    let mut wrong = client(&server, Bearer("wrong".to_owned())).await;
    for _ in 0..100 {
        wrong.list_jobs(ListJobsRequest::default()).await.unwrap_err();
        assert_eq!(get_as_bearer(&server.http, "/jobs", "wrong").code, 401);
        assert_eq!(get_as_bearer(&server.http, "/metrics", tokens.of("bob")).code, 403);
    }
    let refused =
        |principal, code| counted(dir, &[("action", "refused"), ("principal", principal), ("code", code)]);
    until("all of them are counted", || {
        refused("unix:root", "UNAUTHENTICATED") == 200 && refused("token:bob", "PERMISSION_DENIED") == 100
    });
    let log = lines(dir);
    let refusals: Vec<&Value> = log.iter().filter(|it| it["action"] == "refused").collect();
    assert!(refusals.len() < 100, "{}", refusals.len());
    let of_bob = refusals.iter().find(|it| it["principal"] == "token:bob").unwrap();
    assert_eq!(
        (&of_bob["path"], &of_bob["via"], &of_bob["address"]),
        (&"/metrics".into(), &"page".into(), &"127.0.0.1".into())
    );
    // Nothing that gives a right is in it.
    let text = std::fs::read_to_string(dir.join("state/server.log")).unwrap();
    let key = link.split("key=").nth(1).unwrap();
    for secret in [tokens.of("ana"), tokens.of("bob"), &job.token, key] {
        assert!(!text.contains(secret));
    }
}
