//! Another user of the same server.

use std::time::Duration;

use sqlflow_proto::published;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient as PublishedClient;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{GetJobRequest, ListJobsRequest, Request, Session, Token, get_job_request::By};
use sqlflow_tests::access::{Bearer, Tokens};
use sqlflow_tests::http::{self, get_as_bearer};
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::until::until;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = SqlFlowClient<InterceptedService<Channel, Bearer>>;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) tokens: Tokens,
    pub(crate) dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob", "op"]);
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
        .flag(tokens.flag())
        .flag("--admin=token:op");
    World { server: setup.start().unwrap(), tokens, dir }
}

impl World {
    pub(crate) async fn client(&self, bearer: Bearer) -> Client {
        let channel = Endpoint::from_shared(format!("http://{}", self.server.address)).unwrap();
        SqlFlowClient::with_interceptor(channel.connect().await.unwrap(), bearer)
    }

    pub(crate) async fn of(&self, user: &str) -> Client {
        self.client(self.tokens.interceptor(user)).await
    }
}

pub(crate) fn program(sql: &str) -> Request {
    Request { sql: sql.to_owned(), session: Some(Session::default()), ..Request::default() }
}

fn by_id(id: &str) -> GetJobRequest {
    GetJobRequest { by: Some(By::JobId(id.to_owned())) }
}

pub(crate) fn named(id: &str) -> Token {
    Token { token: id.to_owned(), ..Token::default() }
}

/// Id of a job that does not exist.
const UNKNOWN: &str = "00000000000000000000000000";

/// Code of the error.
pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Code {
    answer.unwrap_err().code()
}

/// Fetches until the end by this key; the names of the columns.
pub(crate) async fn follow(client: &mut Client, key: &str) -> String {
    let mut token = named(key);
    let mut seen = String::new();
    loop {
        let page = client.fetch(token.clone()).await.unwrap().into_inner();
        seen.push_str(&format!("{:?}", page.results));
        if sqlflow_tests::client::is_over(&page.job_status.unwrap()) {
            return seen;
        }
        token = page.next.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_its_principals_and_the_administrators() {
    let world = world();
    let (mut ana, mut bob, mut op) = (world.of("ana").await, world.of("bob").await, world.of("op").await);
    let job =
        ana.run(program("SELECT abs('secret of ana') AS its_column, 1 AS x")).await.unwrap().into_inner();
    let id = job.job_id.as_str();

    // With the id alone: bob is told what he would be told of a job that does not exist.
    let unknown = bob.get_job(by_id(UNKNOWN)).await.unwrap_err();
    let foreign = bob.get_job(by_id(id)).await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, unknown.message()));
    assert_eq!(code(bob.fetch(named(id)).await), Code::NotFound);
    assert_eq!(code(bob.cancel(named(id)).await), Code::NotFound);
    assert_eq!(bob.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs.len(), 0);
    let listed = get_as_bearer(&world.server.http, "/jobs", world.tokens.of("bob"));
    assert!(listed.code == 200 && !listed.body.contains(id), "{listed:?}");
    for path in ["", "/log", "/search?q=secret", "/live", "/display/1"] {
        let page_of = |id: &str| {
            get_as_bearer(&world.server.http, &format!("/jobs/{id}{path}"), world.tokens.of("bob"))
        };
        let (page, unknown) = (page_of(id), page_of(UNKNOWN));
        assert!(page.code == 403 && !page.body.contains("secret"), "{path}: {page:?}");
        assert_eq!((page.code, page.body), (unknown.code, unknown.body), "{path}: as of an unknown job");
    }
    let display = format!("/jobs/{id}/display/1");
    let own = get_as_bearer(&world.server.http, &display, world.tokens.of("ana"));
    assert_eq!(own.code, 404, "ana may see her displays, and there is none: {own:?}");
    assert_eq!(get_as_bearer(&world.server.http, "/metrics", world.tokens.of("bob")).code, 403);

    // Ana has lost the token, and has her name.
    assert!(follow(&mut ana, id).await.contains("its_column"));
    assert!(ana.get_job(by_id(id)).await.unwrap().into_inner().sql.contains("secret of ana"));
    assert_eq!(ana.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs.len(), 1);
    assert!(follow(&mut op, id).await.contains("its_column"), "an administrator");
    assert_eq!(op.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs.len(), 1);
    assert_eq!(get_as_bearer(&world.server.http, "/metrics", world.tokens.of("op")).code, 200);
    let opened = get_as_bearer(&world.server.http, &format!("/jobs/{id}"), world.tokens.of("op"));
    assert!(opened.code == 303 && opened.headers.contains("?key="), "{opened:?}");

    // Ana gives bob the job's token.
    assert!(follow(&mut bob, &job.token).await.contains("its_column"));
    assert!(bob.cancel(named(&job.token)).await.is_ok());
}

/// The API of the published clients gives the same answers.
#[tokio::test(flavor = "multi_thread")]
async fn published_api_gives_no_job_to_another_principal() {
    let world = world();
    let client = async |user: &str| {
        let channel = Endpoint::from_shared(format!("http://{}", world.server.address)).unwrap();
        PublishedClient::with_interceptor(channel.connect().await.unwrap(), world.tokens.interceptor(user))
    };
    let (mut ana, mut bob, mut op) = (client("ana").await, client("bob").await, client("op").await);
    let job = world.of("ana").await.run(program("SELECT 'secret of ana' AS s")).await.unwrap().into_inner();

    let fetch = |key: &str| published::FetchRequest {
        job: Some(published::Job { id: key.to_owned(), ..published::Job::default() }),
        ..published::FetchRequest::default()
    };
    let foreign = bob.fetch(fetch(&job.job_id)).await.unwrap_err();
    let unknown = bob.fetch(fetch(UNKNOWN)).await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, unknown.message()));
    for client in [&mut ana, &mut op] {
        client.fetch(fetch(&job.job_id)).await.unwrap();
    }

    let is_finished = |id: &str, query: &str| published::Request {
        session: Some(published::Session {
            job_tracer_url: format!("http://{}/jobs/{id}{query}", world.server.http),
            ..published::Session::default()
        }),
        ..published::Request::default()
    };
    for query in ["", "?key=", "?key=x"] {
        let foreign = bob.is_finished(is_finished(&job.job_id, query)).await.unwrap_err();
        let unknown = bob.is_finished(is_finished(UNKNOWN, query)).await.unwrap_err();
        assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, unknown.message()), "{query}");
    }
    for client in [&mut ana, &mut op] {
        client.is_finished(is_finished(&job.job_id, "")).await.unwrap();
    }
    // Ana gives bob the job's token.
    bob.fetch(fetch(&job.token)).await.unwrap();
}

/// Code of the response to a call of gRPC reflection that lists the services.
async fn reflect(server: &Server, version: &str, access_token: Option<&str>) -> Code {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    // A `ServerReflectionRequest`: `list_services: ""`.
    let mut request = tonic::Request::new(tokio_stream::iter([vec![0x3a, 0]]));
    if let Some(token) = access_token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo").parse().unwrap();
    let answered = match client.streaming(request, path, Raw).await {
        Ok(response) => response.into_inner().message().await,
        Err(status) => Err(status),
    };
    answered.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_for_those_who_may_use_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob"]);
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()));
    let server = setup.flag(tokens.flag()).flag("--allow=token:ana").start().unwrap();
    for version in ["v1", "v1alpha"] {
        assert_eq!(reflect(&server, version, Some("x")).await, Code::Unauthenticated, "{version}");
        assert_eq!(
            reflect(&server, version, Some(tokens.of("bob"))).await,
            Code::PermissionDenied,
            "{version}"
        );
        // A user of this machine, whom the server knows by the connection.
        assert_eq!(reflect(&server, version, None).await, Code::PermissionDenied, "{version}");
        assert_eq!(reflect(&server, version, Some(tokens.of("ana"))).await, Code::Ok, "{version}");
    }
}

/// The session's user is for listings only.
#[tokio::test(flavor = "multi_thread")]
async fn name_in_the_session_is_no_identity() {
    let world = world();
    let mut bob = world.of("bob").await;
    let session = Session { user_id: "token:ana".to_owned(), ..Session::default() };
    let request = Request { session: Some(session), ..program("SELECT 1") };
    let job = bob.run(request).await.unwrap().into_inner();
    assert_eq!(code(world.of("ana").await.get_job(by_id(&job.job_id)).await), Code::NotFound);
    assert_eq!(bob.get_job(by_id(&job.job_id)).await.unwrap().into_inner().user_id, "token:ana");
}

/// Otherwise a client that learns the id of another's request would get its token.
#[tokio::test(flavor = "multi_thread")]
async fn request_id_of_another_principal_is_another_job() {
    let world = world();
    let request =
        Request { request_id: "0b0c8f5e-5d5c-4f0e-9d0a-3c1f6f0f7a11".to_owned(), ..program("SELECT 1") };
    let mut of = Vec::new();
    for user in ["ana", "bob", "ana"] {
        of.push(world.of(user).await.run(request.clone()).await.unwrap().into_inner());
    }
    assert_eq!((&of[0].token, &of[0].job_id), (&of[2].token, &of[2].job_id));
    assert!(of[0].token != of[1].token && of[0].job_id != of[1].job_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_revoked_tokens_are_refused() {
    let world = world();
    for wrong in ["x", "", "sqlflow_at_00", "a.b.c"] {
        let mut client = world.client(Bearer(wrong.to_owned())).await;
        assert_eq!(code(client.run(program("SELECT 1")).await), Code::Unauthenticated, "{wrong:?}");
        assert_eq!(code(client.list_jobs(ListJobsRequest::default()).await), Code::Unauthenticated);
        assert_eq!(get_as_bearer(&world.server.http, "/jobs", wrong).code, 401);
    }
    // Clients that cannot send headers have the token in the session.
    let mut plain = world.server.client().await.unwrap();
    let session = |token: &str| Session { token: token.to_owned(), ..Session::default() };
    let job = plain.run_in("SELECT 1", session(world.tokens.of("ana"))).await.unwrap();
    assert!(world.of("ana").await.get_job(by_id(&job.job_id)).await.is_ok());
    assert_eq!(code(plain.run_in("SELECT 1", session("x")).await), Code::Unauthenticated);

    let mut ana = world.of("ana").await;
    ana.list_jobs(ListJobsRequest::default()).await.unwrap();
    std::fs::write(world.tokens.file(), "").unwrap();
    while ana.list_jobs(ListJobsRequest::default()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(code(ana.run(program("SELECT 1")).await), Code::Unauthenticated);
}

/// The user behind the connection has a right, which the one who shows a wrong identity does not get.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_identity_beside_a_right_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
        .flag(tokens.flag())
        .flag("--allow=token:*,unix:root");
    let world = World { server: setup.start().unwrap(), tokens, dir };
    let mut client = world.server.client().await.unwrap();
    client.run("SELECT 1").await.unwrap();
    assert_eq!(http::get(&world.server.http, "/jobs").code, 200);

    let right = format!("Bearer {}", world.tokens.of("ana"));
    for values in [
        &["Bearer x", &right][..],
        &[&right, "Bearer x"],
        &[&right, &right],
        &["Basic x", &right],
        &["Basic x"],
        &["Bearer"],
        &[&right[7..]],
        &[""],
    ] {
        let mut run = tonic::Request::new(program("SELECT 1"));
        let mut list = tonic::Request::new(ListJobsRequest::default());
        for value in values {
            run.metadata_mut().append("authorization", value.parse().unwrap());
            list.metadata_mut().append("authorization", value.parse().unwrap());
        }
        assert_eq!(code(client.api.run(run).await), Code::Unauthenticated, "{values:?}");
        assert_eq!(code(client.api.list_jobs(list).await), Code::Unauthenticated, "{values:?}");
        let lines: String = values.iter().map(|it| format!("Authorization: {it}\r\n")).collect();
        let page = http::get_with(&world.server.http, "/jobs", &lines);
        assert_eq!(page.code, 401, "{values:?}");
    }
    for token in ["x", "Basic x", &right] {
        let session = Session { token: token.to_owned(), ..Session::default() };
        assert_eq!(code(client.run_in("SELECT 1", session).await), Code::Unauthenticated, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_signs_in_with_an_access_token() {
    let world = world();
    let address = &world.server.http;
    let wrong = http::post(address, "/sign-in", "token=x");
    assert!(wrong.code == 401 && !wrong.headers.contains("set-cookie"), "{wrong:?}");
    let signed_in = http::post(address, "/sign-in", &format!("token={}", world.tokens.of("bob")));
    assert_eq!(signed_in.code, 303, "{signed_in:?}");
    let cookie = signed_in.values("set-cookie").next().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/;"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap();
    let signed_in = format!("Cookie: {pair}\r\n");
    let list = http::get_with(address, "/jobs", &signed_in);
    assert!(list.body.contains("token:bob") && list.body.contains("Sign out"), "{list:?}");
    let rebound = http::get_from_host(address, "/jobs", "evil.example.com");
    assert_eq!(rebound.code, 421, "{rebound:?}");
    let two = http::get_with(address, "/jobs", &format!("Cookie: {pair}\r\nHost: evil.example.com\r\n"));
    assert_eq!(two.code, 421, "{two:?}");

    // Anyone who steals the session gets pages, and only while bob has the entry that it began with.
    let value = pair.split_once('=').unwrap().1;
    let token = world.tokens.of("bob");
    assert!(!value.contains(token) && !value.contains(&hex(token)), "{value}");
    let mut thief = world.client(Bearer(value.to_owned())).await;
    assert_eq!(code(thief.list_jobs(ListJobsRequest::default()).await), Code::Unauthenticated);
    assert_eq!(get_as_bearer(address, "/jobs", value).code, 401);
    let entries = std::fs::read_to_string(world.tokens.file()).unwrap();
    let others = entries.split("[[tokens]]").filter(|it| !it.contains("\"bob\"")).collect::<Vec<_>>();
    std::fs::write(world.tokens.file(), others.join("[[tokens]]")).unwrap();
    let rotated = world.tokens.add("bob");
    until("the session has ended", || http::get_with(address, "/jobs", &signed_in).code == 403);
    assert_eq!(get_as_bearer(address, "/jobs", &rotated).code, 200, "the new token is valid");
}

fn hex(text: &str) -> String {
    text.bytes().map(|it| format!("{it:02x}")).collect()
}

/// The operator says whose a data source is; a session never brings a file or an address.
#[tokio::test(flavor = "multi_thread")]
async fn data_source_is_for_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob"]);
    let file = dir.path().join("sources.toml");
    let datasource = |name: &str| format!("dsn = 'sqlite:///{}/{name}.db?mode=rwc'\n", dir.path().display());
    let text = format!("[hers]\n{}users = ['token:ana']\n[all]\n{}", datasource("hers"), datasource("all"));
    std::fs::write(&file, text).unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
        .flag(tokens.flag())
        .flag(format!("--data-sources={}", file.display()))
        .flag("--datasource-users=token:ana");
    let world = World { server: setup.start().unwrap(), tokens, dir };
    let run = async |user: &str, data_source: &str| {
        let session = Session { db_conn_str: data_source.to_owned(), ..Session::default() };
        let request =
            Request { session: Some(session), ..program("CREATE TABLE t (a INTEGER); SELECT 'done'") };
        let mut client = world.of(user).await;
        let job = client.run(request).await?.into_inner();
        Ok::<_, tonic::Status>(follow(&mut client, &job.token).await)
    };
    assert!(run("ana", "hers").await.unwrap().contains("done"));
    assert!(run("bob", "all").await.unwrap().contains("done"));
    let error = run("bob", "hers").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("there are: all"), "{error:?}");
    assert!(!error.message().contains("sqlite:"), "{error:?}");
    assert_eq!(run("bob", "").await.unwrap_err().code(), Code::InvalidArgument, "the default is not bob's");
    for own in
        ["sqlite:////etc/passwd", "sqlite:////tmp/x.db?mode=rwc", "mysql://u@tcp(169.254.169.254:80)/d"]
    {
        assert_eq!(run("ana", own).await.unwrap_err().code(), Code::PermissionDenied, "{own}");
    }
}
