//! Web pages and probes with a store and a log, without a listener.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::StatusCode;
use futures::StreamExt as _;
use sqlflow_identity::{Method, Policy, Principal};
use sqlflow_job::JobId;
use sqlflow_job_store::{ServerId, SqliteStore};
use sqlflow_launcher::{LocalLauncher, LocalOptions, Python};
use sqlflow_proto::record::{EarlierModel, ModelPublished, Notice, Record, notice, record::Payload};
use sqlflow_result_log::{Entry, Producer};
use tower::ServiceExt as _;

use super::*;
use crate::access::{Peer, Refused, TokenVerifier};
use crate::fixture::{self, HookedLog, LogHooks};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts reads of a job's view from the log's beginning.
#[derive(Default)]
struct WholeReads(Mutex<HashMap<JobId, usize>>);

#[async_trait]
impl LogHooks for WholeReads {
    async fn before_read(&self, job: &JobId, after: u64) {
        if after == 0 {
            *self.0.lock().unwrap().entry(job.clone()).or_default() += 1;
        }
    }
}

struct World {
    web: Web,
    log: Arc<HookedLog<WholeReads>>,
    dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let inner = fixture::log(&dir.path().join("log"));
    let log = Arc::new(HookedLog { inner, hooks: WholeReads::default() });
    let links = Links::open(&dir.path().join("links.key"), "http://localhost", HOUR).unwrap();
    let web = Web {
        store,
        log: log.clone(),
        launcher: Arc::new(launcher(dir.path())),
        metrics: Metrics::default(),
        sessions: Sessions::new(links.clone(), HOUR),
        links,
        trace_url: String::new(),
        shutdown: CancellationToken::new(),
        views: JobViews::default(),
        checks: Checks::default(),
        access: Access::new(Policy::default(), Vec::new()),
        admission: Admission::default(),
        last_use: LastUse::default(),
        oidc: None,
    };
    World { web, log, dir }
}

/// A launcher that starts nothing: there is no agent.
fn launcher(dir: &Path) -> LocalLauncher {
    LocalLauncher::new(LocalOptions {
        agent: dir.join("no-agent"),
        python: Python::unchecked("python3"),
        state_dir: dir.to_owned(),
        run_dir: dir.join("run"),
        cache: dir.join("cache"),
        socket: dir.join("agent.sock"),
        linger: Duration::ZERO,
        attach: Duration::ZERO,
        open_files: None,
        passed_variables: sqlflow_os::inherited_variables::PassedVariables::default(),
        run_as: None,
        max_running: None,
    })
}

impl World {
    /// A running job with one record.
    async fn job(&self) -> JobId {
        let job = fixture::job(true);
        let id = job.id.clone();
        let mut new = fixture::new_job(job, &ServerId("test".to_owned()));
        new.token = sqlflow_job::TokenHash(rand::random());
        self.web.store.create(new).await.unwrap();
        self.say(&id, "begins").await;
        id
    }

    async fn say(&self, job: &JobId, text: &str) {
        let notice = Notice { kind: notice::Kind::Status.into(), text: text.to_owned() };
        let record = Record { payload: Some(Payload::Notice(notice)), ..Record::default() };
        let entry = Entry { producer: Producer::server(0), record };
        self.log.append(job, vec![entry]).await.unwrap();
    }

    /// Changes the state without the server.
    fn tamper(&self, sql: &str) {
        fixture::tamper(&self.dir.path().join("state.db"), sql);
    }

    async fn heartbeat(&self) {
        let lease = Duration::from_secs(1);
        // Its result is what the store keeps.
        let _ = self.web.store.heartbeat(&ServerId("test".to_owned()), lease, lease).await;
    }

    /// Code and text of `/readyz` for the server's own user.
    async fn readiness(&self) -> (StatusCode, String) {
        self.readiness_for(Some((*self.web.access.own_user).clone()), "").await
    }

    /// The same for another end of the connection, by a request with this header of proxies if it has one.
    async fn readiness_for(&self, peer: Option<Principal>, forwarded: &str) -> (StatusCode, String) {
        let request = Request::get("/readyz")
            .header("host", "localhost")
            .extension(Peer { principal: peer, address: None });
        let request = match forwarded {
            "" => request,
            name => request.header(name, "192.0.2.1"),
        };
        let response = self.web.routes().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, body) = (response.status(), response.into_body());
        let text = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Body) {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let response = self.web.routes().oneshot(request).await.unwrap();
        (response.status(), response.into_body())
    }
}

/// Cannot verify `down`, knows nothing of `wrong`, and takes all other tokens for those of ana in this group.
struct Verifier(String);

#[async_trait]
impl TokenVerifier for Verifier {
    async fn principal(&self, token: &str) -> Result<Option<Principal>, Refused> {
        let ana = || Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, [self.0.as_str()]);
        match token {
            "down" => Err(Refused::Unavailable("no answer".to_owned())),
            "wrong" => Ok(None),
            _ => Ok(Some(ana())),
        }
    }
}

#[tokio::test]
async fn refused_sign_in_says_whether_the_token_is_wrong() {
    let mut world = world().await;
    let group = "x".repeat(4000);
    let allowed = vec![format!("group:oidc:{group}").parse().unwrap()];
    let policy = Policy { allowed, ..Policy::default() };
    world.web.access = Access::new(policy, vec![Box::new(Verifier(group))]);
    for (token, status) in [
        ("wrong", StatusCode::UNAUTHORIZED),
        ("down", StatusCode::SERVICE_UNAVAILABLE),
        ("long", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::post("/sign-in")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={token}")));
        let response = world.web.routes().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{token}");
        assert!(!response.headers().contains_key(header::SET_COOKIE), "{token}");
    }
}

/// The next summary on a page that contains this.
async fn summary(events: &mut axum::body::BodyDataStream, text: &str) {
    let found = async {
        while let Some(event) = events.next().await {
            let event = String::from_utf8(event.unwrap().to_vec()).unwrap();
            if event.contains("event: summary") && event.contains(text) {
                return;
            }
        }
        panic!("the page has ended");
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("there is no such summary");
}

/// More pages than cached views without a page.
#[tokio::test]
async fn open_pages_read_the_log_once() {
    let world = world().await;
    let mut pages = Vec::new();
    for _ in 0..70 {
        let job = world.job().await;
        // Only the view reads from the beginning: the page's log starts after the first record.
        let path = world.web.links.path(&job).replace('?', "/live?after=1&");
        let (status, body) = world.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        pages.push((job, body.into_data_stream()));
    }
    for round in ["first", "second"] {
        for (job, _) in &pages {
            world.say(job, round).await;
        }
        for (_, events) in &mut pages {
            summary(events, round).await;
        }
    }
    let whole = world.log.hooks.0.lock().unwrap();
    let reads: Vec<_> = pages.iter().map(|(job, _)| whole[job]).collect();
    assert_eq!(reads, vec![1; pages.len()]);
}

/// It can be read, so it stays ready. A launcher that can start nothing does not matter either.
#[tokio::test]
async fn readiness_reports_failing_heartbeats() {
    let world = world().await;
    let can_record = async |world: &World| {
        let (status, text) = world.readiness().await;
        assert!(text.starts_with("store: ok\nlog: ok\nnew jobs: ok\nlauncher: the agent"), "{text}");
        assert_eq!(status, StatusCode::OK);
    };
    can_record(&world).await;
    world
        .tamper("CREATE TRIGGER t BEFORE INSERT ON servers BEGIN SELECT RAISE(ABORT, 'read-only disk'); END");
    world.heartbeat().await;
    let (status, text) = world.readiness().await;
    assert_eq!(status, StatusCode::OK);
    let line = text.lines().nth(2).unwrap();
    assert!(line.starts_with("new jobs: cannot write this server's heartbeat: "), "{text}");
    assert!(line.contains("read-only disk"), "{text}");
    world.tamper("DROP TRIGGER t");
    world.heartbeat().await;
    can_record(&world).await;
}

/// The launcher may have to ask an API server, and anyone can call a probe.
#[tokio::test]
async fn launcher_is_asked_once_in_five_seconds_by_all_probes() {
    let world = world().await;
    let begun = std::time::Instant::now();
    let (_, before) = world.readiness().await;
    assert!(before.contains("no-agent cannot be started"), "{before}");
    let agent = world.dir.path().join("no-agent");
    std::fs::write(&agent, "").unwrap();
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (_, cached) = world.readiness().await;
    // On a machine that was slow to get here, the launcher may have been asked again.
    if begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(cached, before);
    }
    let later = World { web: Web { checks: Checks::default(), ..world.web.clone() }, ..world };
    let (_, asked) = later.readiness().await;
    assert_ne!(asked, before);
}

/// Addresses and paths are nobody else's business.
#[tokio::test]
async fn strangers_learn_whether_the_server_is_ready_and_no_more() {
    let world = world().await;
    let own = (*world.web.access.own_user).clone();
    for (peer, forwarded, is_detailed) in [
        (Some(own.clone()), "", true),
        (Some(own), "x-forwarded-for", false),
        (Some(Principal::new(Method::Unix, "somebody")), "", false),
        (None, "", false),
    ] {
        let (status, text) = world.readiness_for(peer.clone(), forwarded).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text != "ready\n", is_detailed, "{peer:?} {forwarded}: {text}");
    }
    world.web.shutdown.cancel();
    let (status, text) = world.readiness_for(None, "").await;
    assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"));
}

/// Of a log of gigabytes a page shows what was read in time, and continues with that.
#[tokio::test]
async fn long_log_is_read_in_parts() {
    let world = world().await;
    let job = world.job().await;
    for text in ["first", "last"] {
        world.say(&job, text).await;
        world.say(&job, &"x".repeat(3 << 20)).await;
    }
    let view = world.web.views.of(&job);
    let record = world.web.store.load(&job).await.unwrap().unwrap();
    let mut parts = Vec::new();
    loop {
        let part = pages::summary(&world.web, &record, &view, Duration::ZERO).await.unwrap();
        let is_incomplete = part.markup.into_string().contains("still being read");
        assert_eq!(is_incomplete, !part.is_whole);
        parts.push(view.lock().await.unread);
        if part.is_whole {
            break;
        }
    }
    assert!(parts.len() > 2 && parts.is_sorted_by(|a, b| a > b), "{parts:?}");
    assert_eq!(world.log.hooks.0.lock().unwrap()[&job], 1, "nothing is read twice");
    let longest = view.lock().await.notices.iter().map(|(_, notice)| notice.text.len()).max();
    assert!(longest < Some(1100), "{longest:?}");
}

/// A removed model has no files.
#[tokio::test]
async fn page_shows_replaced_and_removed_models() {
    let world = world().await;
    let job = world.job().await;
    let earlier = EarlierModel { made_ms: 1_700_000_000_000, trained_by: "ana".to_owned() };
    let published = ModelPublished {
        name: "kept".to_owned(),
        uri: "file:///models/kept".to_owned(),
        replaced: Some(earlier.clone()),
        ..ModelPublished::default()
    };
    let removed = ModelPublished { name: "gone".to_owned(), removed: true, ..published.clone() };
    for model in [published, removed] {
        let record = Record { payload: Some(Payload::Model(model)), ..Record::default() };
        world.log.append(&job, vec![Entry { producer: Producer::server(0), record }]).await.unwrap();
    }
    let record = world.web.store.load(&job).await.unwrap().unwrap();
    let view = world.web.views.of(&job);
    let page = pages::summary(&world.web, &record, &view, Duration::MAX).await.unwrap().markup.into_string();
    let (kept, gone) = page.split_once("<h3>gone</h3>").unwrap();
    assert!(kept.contains("Replaced</dt><dd>a model trained") && kept.contains("by ana"), "{kept}");
    assert!(kept.contains("kept.tar.gz") && !kept.contains("removed"), "{kept}");
    assert!(gone.contains("removed") && gone.contains("2023-11-14") && !gone.contains("tar.gz"), "{gone}");
}
