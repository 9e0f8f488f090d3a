//! Peers that use up memory, time or places, most of them before anybody knows who they are.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use prost::Message as _;
use sqlflow_proto::agent::agent_server::{Agent, AgentServer};
use sqlflow_proto::agent::attach_request::Message;
use sqlflow_proto::agent::{AttachRequest, AttachResponse, CompressedRecords, Hello};
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{Request, Session, Token};
use sqlflow_tests::access::Tokens;
use sqlflow_tests::agents_port::agents_socket;
use sqlflow_tests::http::{self, get_as_bearer, path_of};
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::{self, Channel, Endpoint};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
/// Bytes of a flood.
const FLOOD: usize = 16 << 20;

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, format!("sqlite:///{}/x.db", dir.display()))
}

/// Sends messages to Attach; the code of its error.
async fn attach(channel: Channel, messages: Vec<Vec<u8>>) -> Code {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = tonic::Request::new(tokio_stream::iter(messages));
    let path = "/sqlflow.agent.v1.Agent/Attach".parse().unwrap();
    match client.streaming(request, path, Raw).await {
        Ok(response) => match response.into_inner().message().await {
            Ok(message) => panic!("it answers {message:?}"),
            Err(status) => status.code(),
        },
        Err(status) => status.code(),
    }
}

/// A message of Attach with this many empty records.
fn empty_records(bytes: usize) -> Vec<u8> {
    let batch = [0x0a, 0].repeat(bytes / 2);
    let mut message = vec![0x12];
    prost::encoding::encode_varint(batch.len() as u64, &mut message);
    message.extend(batch);
    message
}

fn grown(server: &Server, before: u64) -> u64 {
    server.memory_peak().saturating_sub(before) / MIB
}

/// 17 MiB of empty records took a gigabyte.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_unknown_agent_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let before = server.memory_peak();
    for _ in 0..4 {
        // Beyond 64 KiB the connection is closed; below, the first message is too long or no Hello.
        for bytes in [FLOOD, 60 << 10, 10 << 10] {
            let channel = agents_socket(&dir.path().join("state")).await;
            attach(channel, vec![empty_records(bytes)]).await;
        }
    }
    assert!(grown(&server, before) < 32, "{} MiB", grown(&server, before));
    assert!(server.client().await.unwrap().run("SELECT 1").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn first_message_of_an_agent_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let _server = setup(dir.path()).start().unwrap();
    let channel = agents_socket(&dir.path().join("state")).await;
    assert_eq!(attach(channel, vec![empty_records(20 << 10)]).await, Code::ResourceExhausted);
    let channel = agents_socket(&dir.path().join("state")).await;
    assert_eq!(attach(channel, vec![empty_records(100)]).await, Code::InvalidArgument, "no Hello");
}

/// Takes the first Hello of the agents that attach here, and answers nothing.
struct Thief(mpsc::Sender<Hello>);

#[tonic::async_trait]
impl Agent for Thief {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: tonic::Request<tonic::Streaming<AttachRequest>>,
    ) -> Result<tonic::Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|it| it.message);
        if let Some(Message::Hello(hello)) = first {
            let _ = self.0.try_send(hello);
        }
        let (open, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(_)) = requests.message().await {}
            drop(open);
        });
        Ok(tonic::Response::new(ReceiverStream::new(answers)))
    }
}

/// A job's program may speak for its agent, whose memory it can read. A batch of 17 KB took the server to 1.8 GB.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_admitted_agent_take_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let address = dir.path().join("thief.sock");
    let (hellos, mut stolen) = mpsc::channel(1);
    let listener = UnixListenerStream::new(UnixListener::bind(&address).unwrap());
    let service = AgentServer::new(Thief(hellos));
    tokio::spawn(transport::Server::builder().add_service(service).serve_with_incoming(listener));
    let server = stand_in::setup(dir.path(), "", Some(&address)).start().unwrap();
    server.client().await.unwrap().run(stand_in::STEP).await.unwrap();
    let hello = stolen.recv().await.unwrap();

    let before = server.memory_peak();
    let compressed = compressed_records(&[0x0a, 0].repeat(FLOOD / 2));
    assert!(compressed.data.len() < 20_000, "{}", compressed.data.len());
    // As many as fit: the server adds those that have arrived to one write.
    let many = compressed_records(&[0x0a, 0].repeat(60_000));
    let encoded = |message| AttachRequest { message: Some(message) }.encode_to_vec();
    let hello = encoded(Message::Hello(hello));
    for flood in [
        vec![encoded(Message::Compressed(compressed))],
        vec![empty_records(FLOOD)],
        vec![encoded(Message::Compressed(many)); 100],
    ] {
        let channel = agents_socket(&dir.path().join("state")).await;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let (messages, stream) = mpsc::channel(4);
        messages.send(hello.clone()).await.unwrap();
        let request = tonic::Request::new(ReceiverStream::new(stream));
        let path = "/sqlflow.agent.v1.Agent/Attach".parse().unwrap();
        let mut answers = client.streaming(request, path, Raw).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some(), "it is attached");
        let sending = tokio::spawn(async move {
            for message in flood {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(Some(_)) = answers.message().await {}
        sending.await.unwrap();
    }
    let grown = grown(&server, before);
    assert!(grown < 256, "{grown} MiB");
}

fn compressed_records(batch: &[u8]) -> CompressedRecords {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, batch).unwrap();
    CompressedRecords { data: encoder.finish().unwrap().into(), length: u32::try_from(batch.len()).unwrap() }
}

/// A list of 16 MB in a program took 1.4 GB.
#[tokio::test(flavor = "multi_thread")]
async fn programs_of_many_nodes_take_little_memory() {
    let many = (FLOOD - 200) / 2;
    for sql in [
        format!("SELECT 1 TO TRAIN a.b WITH x=[{}1] LABEL c INTO m;", "1,".repeat(many)),
        "a;".repeat(many),
        format!("DROP TABLE {}a;", "a,".repeat(many)),
        format!("SELECT * FROM {}a TO PREDICT t.c USING m;", "b,".repeat(many)),
        "(".repeat(2 * many),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = setup(dir.path()).start().unwrap();
        let before = server.memory_peak();
        let beginning = sql[..30].to_owned();
        // The last ones are accepted, or have an error: only their memory counts.
        let _ = server.client().await.unwrap().run(sql).await;
        let grown = grown(&server, before);
        println!("{beginning}: {grown} MiB");
        assert!(grown < 384, "{beginning}: {grown} MiB");
    }
}

/// A program near the limits of length, statements and nodes, with a mistake in its last line, which is line 9001.
fn long_wrong_program() -> String {
    let mut sql = format!("SELECT 1; -- {}\n", "x".repeat(1_700)).repeat(9_000);
    let list = "1,".repeat(60_000);
    sql.push_str(&format!("SELECT 1 TO TRAIN xgboost.gbtree WITH x=[{list}1] LABEL INTO m;"));
    assert!(sql.len() > 15_000_000 && sql.len() < FLOOD);
    sql
}

/// Two of them are compiled at a time, and the others wait.
#[tokio::test(flavor = "multi_thread")]
async fn many_long_programs_take_bounded_memory_and_delay_no_short_one() {
    const VALID: usize = 12_000_000;
    const LONG: usize = 11;
    let dir = tempfile::tempdir().unwrap();
    // What is freed is no longer resident: this measures what programs hold.
    let server = setup(dir.path()).env("MALLOC_MMAP_THRESHOLD_", "131072").start().unwrap();
    let before = server.memory_peak();
    let wrong: Arc<str> = long_wrong_program().into();
    let mut long = tokio::task::JoinSet::new();
    for _ in 1..LONG {
        let (mut client, sql) = (server.client().await.unwrap(), Arc::clone(&wrong));
        long.spawn(async move {
            let refused = client.run(&*sql).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(refused.message().contains("line 9001, column "), "{refused}");
        });
    }
    let mut client = server.client().await.unwrap();
    long.spawn(async move {
        let sql = format!("SELECT length('{}') AS l", "x".repeat(VALID));
        let token = client.run(sql).await.unwrap();
        assert_eq!(client.follow(&token).await.unwrap().rows(), [[VALID.to_string()]]);
    });

    let mut short = server.client().await.unwrap();
    for _ in 0..3 {
        short.run("SELECT 1").await.unwrap();
    }
    let mut answered = 0;
    while let Some(answer) = long.try_join_next() {
        answer.unwrap();
        answered += 1;
    }
    assert!(answered < LONG, "the short programs waited for the long ones");
    while let Some(answer) = long.join_next().await {
        answer.unwrap();
    }
    let grown = grown(&server, before);
    println!("{grown} MiB");
    assert!(grown < 1024, "{grown} MiB");
}

/// The link to a job's page, once the job has ended.
async fn page_of_a_job(server: &Server) -> String {
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    client.follow(&token).await.unwrap();
    path_of(&token.job_tracer_url).to_owned()
}

/// 4 MB of empty lines held every other request for 25 s.
#[tokio::test(flavor = "multi_thread")]
async fn search_in_many_lines_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let code = "import sys\nfor _ in range(16): sys.stdout.write('\\n' * (1 << 18) + '\\r' * (1 << 18))";
    let server = stand_in::setup(dir.path(), code, None).start().unwrap();
    let link = page_of_a_job(&server).await;
    let (page, key) = link.split_once("?key=").unwrap();
    let search = format!("{page}/search?key={key}&q=needle");
    let address = server.http.clone();
    let searches: Vec<_> = (0..8)
        .map(|_| {
            let (address, search) = (address.clone(), search.clone());
            std::thread::spawn(move || http::get(&address, &search).code)
        })
        .collect();
    // Before, one search took most of a minute.
    let begun = Instant::now();
    while !searches.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(http::get(&server.http, "/healthz").code, 200);
        assert!(begun.elapsed() < Duration::from_secs(60), "they are still searching");
    }
    for search in searches {
        assert_eq!(search.join().unwrap(), 200);
    }
    assert_eq!(http::get(&server.http, &link).code, 200);
}

/// Peers that connect and say nothing, or requests without a right, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_right_leave_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let server = setup(dir.path()).flag(tokens.flag()).descriptors(512).start().unwrap();
    let socket = dir.path().join("state/agent.sock");
    // More than the server has descriptors, to every listener.
    let silent: Vec<_> =
        (0..400).filter_map(|_| std::net::TcpStream::connect(&server.address).ok()).collect();
    let agents: Vec<_> = (0..100).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    let browsers: Vec<_> = (0..100).filter_map(|_| std::net::TcpStream::connect(&server.http).ok()).collect();
    assert!(server.open_descriptors().unwrap() < 500, "{:?}", server.open_descriptors());
    // The oldest silent ones lose their places to it.
    let channel =
        Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut client = SqlFlowClient::with_interceptor(channel, tokens.interceptor("ana"));
    let request =
        Request { sql: "SELECT 1".to_owned(), session: Some(Session::default()), ..Request::default() };
    let job = client.run(request).await.unwrap().into_inner();
    let mut token = Token { token: job.token, ..Token::default() };
    loop {
        let page = client.fetch(token).await.unwrap().into_inner();
        if sqlflow_tests::client::is_over(&page.job_status.unwrap()) {
            break;
        }
        token = page.next.unwrap();
    }
    drop((silent, agents, browsers));
}

/// Opens the live updates of a page, until the server begins its answer; `lines` are those of the request's header.
fn open_live(server: &Server, path: &str, lines: &str) -> std::net::TcpStream {
    let mut open = std::net::TcpStream::connect(&server.http).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", server.http);
    std::io::Write::write_all(&mut open, request.as_bytes()).unwrap();
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut open, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200", "{path}");
    open
}

/// Everybody who has a link was counted as one user.
#[tokio::test(flavor = "multi_thread")]
async fn link_of_one_job_leaves_room_for_other_links() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let server = stand_in::setup(dir.path(), "import time; time.sleep(1000)", None)
        .flag(tokens.flag())
        .flag("--limit-pages=1")
        .flag("--grace=1s")
        .start()
        .unwrap();
    let channel =
        Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut ana = SqlFlowClient::with_interceptor(channel, tokens.interceptor("ana"));
    let mut live = Vec::new();
    for _ in 0..2 {
        let session = Some(Session::default());
        let program = Request { sql: stand_in::STEP.to_owned(), session, ..Request::default() };
        let job = ana.run(program).await.unwrap().into_inner();
        live.push(path_of(&job.job_tracer_url).replace("?key=", "/live?key="));
    }
    let _first = open_live(&server, &live[0], "");
    let refused = http::get(&server.http, &live[0]);
    assert!(refused.code == 429 && refused.body.contains("the most for one link"), "{refused:?}");
    let _second = open_live(&server, &live[1], "");
}

/// Everybody who had the token of a job and no other right was counted as one user.
#[tokio::test(flavor = "multi_thread")]
async fn token_of_one_job_leaves_room_for_other_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "eve"]);
    let server = setup(dir.path())
        .flag(tokens.flag())
        .flag("--allow=token:ana")
        .flag("--limit-connections=2")
        .start()
        .unwrap();
    let connect = async |user: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        SqlFlowClient::with_interceptor(channel, tokens.interceptor(user))
    };
    let mut ana = connect("ana").await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let session = Some(Session::default());
        let program = Request { sql: "SELECT 1".to_owned(), session, ..Request::default() };
        jobs.push(ana.run(program).await.unwrap().into_inner());
    }

    // Eve may not use the server, but got the tokens of both.
    let read = async |job: &Token| {
        let mut eve = connect("eve").await;
        let page = eve.fetch(job.clone()).await;
        page.map(|_| eve)
    };
    let held = [read(&jobs[0]).await.unwrap(), read(&jobs[0]).await.unwrap()];
    let Err(refused) = read(&jobs[0]).await else { panic!("a third connection is admitted") };
    assert!(
        refused.code() == Code::ResourceExhausted && refused.message().contains("the most for one job"),
        "{refused}"
    );
    assert!(!refused.details().is_empty(), "a retry hint");
    assert!(read(&jobs[1]).await.is_ok(), "the token of another job");
    let list = sqlflow_proto::v1::ListJobsRequest::default();
    assert!(connect("ana").await.list_jobs(list).await.is_ok(), "a user of the server");
    drop(held);
    while read(&jobs[0]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ana uses all that she may; bob and the operator are served.
#[tokio::test(flavor = "multi_thread")]
async fn one_principal_leaves_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::at(dir.path(), &["ana", "bob", "op"]);
    let server = stand_in::setup(dir.path(), "import time; time.sleep(1000)", None)
        .flag(tokens.flag())
        .flag("--admin=token:op")
        .flag("--limit-jobs=2")
        .flag("--limit-connections=3")
        .flag("--limit-pages=1")
        .flag("--grace=1s")
        .start()
        .unwrap();
    let connect = async |user: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        SqlFlowClient::with_interceptor(channel, tokens.interceptor(user))
    };
    let program = || Request {
        sql: stand_in::STEP.to_owned(),
        session: Some(Session::default()),
        ..Request::default()
    };

    let mut ana = connect("ana").await;
    let jobs =
        [ana.run(program()).await.unwrap().into_inner(), ana.run(program()).await.unwrap().into_inner()];
    let refused = ana.run(program()).await.unwrap_err();
    assert!(
        refused.code() == Code::ResourceExhausted && refused.message().contains("--limit-jobs"),
        "{refused}"
    );
    assert!(!refused.details().is_empty(), "a retry hint");
    assert!(connect("bob").await.run(program()).await.is_ok());
    let mut op = connect("op").await;
    for _ in 0..3 {
        op.run(program()).await.unwrap();
    }

    let list = sqlflow_proto::v1::ListJobsRequest::default;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut more = connect("ana").await;
        more.list_jobs(list()).await.unwrap();
        held.push(more);
    }
    let refused = connect("ana").await.list_jobs(list()).await.unwrap_err();
    assert!(refused.message().contains("--limit-connections"), "{refused}");
    assert!(connect("bob").await.list_jobs(list()).await.is_ok());
    drop(held);
    while connect("ana").await.list_jobs(list()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let live = format!("{}/live", path_of(&jobs[0].job_tracer_url).split('?').next().unwrap());
    let authorization = format!("Authorization: Bearer {}\r\n", tokens.of("ana"));
    let _open = open_live(&server, &live, &authorization);
    let second = get_as_bearer(&server.http, &live, tokens.of("ana"));
    assert!(second.code == 429 && second.body.contains("--limit-pages"), "{second:?}");
    assert!(second.headers.contains("retry-after: 5"), "{second:?}");
}
