//! Another user of the same server.

use std::time::Duration;

use sqlflow_proto::published;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient as PublishedClient;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{GetJobRequest, ListJobsRequest, Request, Session, Token, get_job_request::By};
use sqlflow_tests::access::{Bearer, Tokens};
use sqlflow_tests::http::{self, get_as_bearer};
use sqlflow_tests::python;
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::until::until;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::audit;

type Client = SqlFlowClient<InterceptedService<Channel, Bearer>>;

struct World {
    server: Server,
    tokens: Tokens,
    dir: tempfile::TempDir,
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
    async fn client(&self, bearer: Bearer) -> Client {
        let channel = Endpoint::from_shared(format!("http://{}", self.server.address)).unwrap();
        SqlFlowClient::with_interceptor(channel.connect().await.unwrap(), bearer)
    }

    async fn of(&self, user: &str) -> Client {
        self.client(self.tokens.interceptor(user)).await
    }
}

fn program(sql: &str) -> Request {
    Request { sql: sql.to_owned(), session: Some(Session::default()), ..Request::default() }
}

fn by_id(id: &str) -> GetJobRequest {
    GetJobRequest { by: Some(By::JobId(id.to_owned())) }
}

fn named(id: &str) -> Token {
    Token { token: id.to_owned(), ..Token::default() }
}

/// Id of a job that does not exist.
const UNKNOWN: &str = "00000000000000000000000000";

/// Code of the error.
fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Code {
    answer.unwrap_err().code()
}

/// Fetches until the end by this key; the names of the columns.
async fn follow(client: &mut Client, key: &str) -> String {
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

const TRAIN: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH objective = \"multi:softmax\", num_class = 3, \
                     train.num_boost_round = 1 LABEL class INTO flowers;";

/// A server with flowers, and two places for jobs.
fn world_with_flowers() -> World {
    world_with_rules("")
}

/// With these rules for models.
fn world_with_rules(rules: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let rights = dir.path().join("rights.toml");
    std::fs::write(&rights, rules).unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob", "op"]);
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap())
        .flag(tokens.flag())
        .flag("--admin=token:op")
        .flag(format!("--model-rights={}", rights.display()))
        .flag("--max-running=2");
    World { server: setup.start().unwrap(), tokens, dir }
}

/// Runs a program to its end; its failure.
async fn run(client: &mut Client, sql: &str) -> Result<Option<String>, tonic::Status> {
    let mut token = named(&client.run(program(sql)).await?.into_inner().token);
    loop {
        let page = client.fetch(token.clone()).await?.into_inner();
        let status = page.job_status.unwrap();
        if sqlflow_tests::client::is_over(&status) {
            let is_failed = status.code() == sqlflow_proto::v1::job_status::Code::Failed;
            return Ok(is_failed.then_some(status.message));
        }
        token = page.next.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_replaced_and_dropped_by_its_owner_only() {
    let world = world_with_flowers();
    let (mut ana, mut bob, mut op) = (world.of("ana").await, world.of("bob").await, world.of("op").await);
    assert_eq!(run(&mut ana, TRAIN).await.unwrap(), None);
    for sql in [TRAIN, "DROP MODEL flowers;", "DROP MODEL IF EXISTS flowers;"] {
        let refused = run(&mut bob, sql).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{sql}");
        assert!(refused.message().contains("the model flowers belongs to token:ana"), "{refused:?}");
    }
    // Reading it is everybody's.
    let shown =
        "SELECT * FROM iris LIMIT 3 TO PREDICT flowers_of_bob.class USING flowers; SHOW TRAIN flowers;";
    assert_eq!(run(&mut bob, shown).await.unwrap(), None);
    assert_eq!(run(&mut ana, TRAIN).await.unwrap(), None, "its owner replaces it");
    // An administrator replaces it, and it stays hers.
    assert_eq!(run(&mut op, TRAIN).await.unwrap(), None);
    assert_eq!(code(run(&mut bob, TRAIN).await), Code::PermissionDenied);
    assert_eq!(run(&mut op, "DROP MODEL flowers;").await.unwrap(), None);
    assert_eq!(run(&mut bob, TRAIN).await.unwrap(), None, "it is nobody's any more");
    assert_eq!(code(run(&mut ana, TRAIN).await), Code::PermissionDenied);

    let lines = audit::lines(world.dir.path());
    let models = lines.iter().filter(|it| it["model"] == "flowers");
    let models: Vec<_> =
        models.map(|it| (text(&it["principal"]), text(&it["action"]), text(&it["owner"]))).collect();
    let expected = [
        ("token:ana", "publish", ""),
        ("token:ana", "publish", ""),
        ("token:op", "publish", "token:ana"),
        ("token:op", "drop", "token:ana"),
        ("token:bob", "publish", ""),
    ];
    assert_eq!(models, expected);
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn model_is_read_and_made_by_those_whom_the_rules_name() {
    let world = world_with_rules("['*']\nread = ['token:ana']\n['team/*']\ncreate = ['token:ana']");
    let (mut ana, mut bob) = (world.of("ana").await, world.of("bob").await);
    let train = |model: &str| TRAIN.replace("INTO flowers", &format!("INTO {model}"));
    assert_eq!(code(run(&mut bob, &train("team/flowers")).await), Code::PermissionDenied);
    for model in ["team/flowers", "hers"] {
        assert_eq!(run(&mut ana, &train(model)).await.unwrap(), None, "{model}");
    }
    assert_eq!(run(&mut bob, &train("his")).await.unwrap(), None);
    for of_another in ["SHOW TRAIN hers;", "DESCRIBE MODEL hers;"] {
        assert_eq!(code(run(&mut bob, of_another).await), Code::PermissionDenied, "{of_another}");
    }
    for own_or_shared in ["SHOW TRAIN his;", "SHOW TRAIN team/flowers;"] {
        assert_eq!(run(&mut bob, own_or_shared).await.unwrap(), None, "{own_or_shared}");
    }
    assert_eq!(run(&mut ana, "SHOW TRAIN his;").await.unwrap(), None);
    let key = bob.run(program("SHOW MODELS;")).await.unwrap().into_inner().token;
    let listed = follow(&mut bob, &key).await;
    assert!(
        listed.contains("his") && listed.contains("team/flowers") && !listed.contains("hers"),
        "{listed}"
    );
    // Nor does a suggestion name it.
    let failure = run(&mut bob, "DROP MODEL her;").await.unwrap().unwrap();
    assert!(!failure.contains("hers"), "{failure}");
    assert!(run(&mut ana, "DROP MODEL her;").await.unwrap().unwrap().contains("hers"), "her own");
}

/// The rules of `docs/security.md` that give each user a namespace.
#[tokio::test(flavor = "multi_thread")]
async fn models_are_made_below_the_name_of_their_owner_only() {
    let world = world_with_rules("['{user}/*']\n['*']\ncreate = []");
    let (mut ana, mut bob, mut op) = (world.of("ana").await, world.of("bob").await, world.of("op").await);
    let train = |model: &str| TRAIN.replace("INTO flowers", &format!("INTO {model}"));
    assert_eq!(run(&mut ana, &train("ana/flowers")).await.unwrap(), None);
    for model in ["flowers", "ana/flowers_of_bob", "bobs/flowers"] {
        let refused = run(&mut bob, &train(model)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{model}");
        assert!(refused.message().ends_with("; use a name that begins with bob/"), "{refused:?}");
    }
    assert_eq!(code(run(&mut bob, "DROP MODEL ana/flowers;").await), Code::PermissionDenied);
    assert_eq!(run(&mut bob, &train("bob/flowers")).await.unwrap(), None);
    assert_eq!(run(&mut bob, "SHOW TRAIN ana/flowers;").await.unwrap(), None, "reading is everybody's");
    assert_eq!(run(&mut op, &train("flowers")).await.unwrap(), None, "an administrator");
}

/// Run cannot know which of two jobs will be the first to publish.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_for_one_new_model_one_publishes() {
    let world = world_with_flowers();
    let (mut ana, mut bob) = (world.of("ana").await, world.of("bob").await);
    let (anas, bobs) = tokio::join!(run(&mut ana, TRAIN), run(&mut bob, TRAIN));
    let failures: Vec<_> = [anas, bobs].into_iter().map(Result::unwrap).collect();
    let failed: Vec<&String> = failures.iter().flatten().collect();
    let [failure] = failed[..] else { panic!("one of them: {failures:?}") };
    assert!(failure.contains("the model flowers belongs to token:"), "{failure}");
}
