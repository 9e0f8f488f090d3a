//! Tokens and sign-ins of OpenID Connect.

use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{GetJobRequest, ListJobsRequest, Request, Session, get_job_request::By};
use sqlflow_tests::access::Bearer;
use sqlflow_tests::browser::{Browser, Page};
use sqlflow_tests::http;
use sqlflow_tests::oidc::{Provider, SigningKey, signed};
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::services::{OidcProvider, free_port};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Client = SqlFlowClient<InterceptedService<Channel, Bearer>>;

async fn client(server: &Server, token: &str) -> Client {
    let channel = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    SqlFlowClient::with_interceptor(channel.connect().await.unwrap(), Bearer(token.to_owned()))
}

/// Runs a program with this token; the job's id.
async fn run(server: &Server, token: &str) -> Result<String, Status> {
    let request =
        Request { sql: "SELECT 1".to_owned(), session: Some(Session::default()), ..Request::default() };
    Ok(client(server, token).await.run(request).await?.into_inner().job_id)
}

/// Why a token is refused, which does not repeat it.
async fn refusal(server: &Server, token: &str) -> (Code, String) {
    let status = run(server, token).await.unwrap_err();
    for part in token.split('.').filter(|it| it.len() > 8) {
        assert!(!status.message().contains(part), "{status:?}");
    }
    (status.code(), status.message().to_owned())
}

fn setup(dir: &tempfile::TempDir) -> Setup {
    Setup::new(dir.path(), format!("sqlite:///{}/x.db", dir.path().display()))
}

/// A server that accepts tokens of this provider from ana.
fn server_of(provider: &Provider, dir: &tempfile::TempDir) -> Server {
    let setup = setup(dir).flag(format!("--oidc-issuer={}", provider.issuer));
    setup.flag("--oidc-audience=sqlflow").flag("--allow=oidc:ana").start().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_and_tokens_for_others_are_refused_with_the_cause() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::new("one"));
    let provider = Provider::start(&[&key]);
    let server = server_of(&provider, &dir);
    let claims = |changes: &Value| provider.claims(changes);
    let right = claims(&json!({}));
    let job = run(&server, &key.token(&right)).await.unwrap();
    let mut ana = client(&server, &key.token(&right)).await;
    ana.get_job(GetJobRequest { by: Some(By::JobId(job)) }).await.unwrap();

    let of_alg = |alg: &str| json!({ "alg": alg, "kid": "one", "typ": "JWT" });
    let mac = |secret: &[u8]| {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        signed(&of_alg("HS256"), &right, |text| hmac::sign(&secret, text).as_ref().to_vec())
    };
    let stranger = SigningKey::new("one");
    for (token, cause) in [
        (signed(&of_alg("none"), &right, |_| Vec::new()), "its signature is of a kind that is not accepted"),
        (mac(key.public()), "its signature is of a kind that is not accepted"),
        (mac(key.jwk().to_string().as_bytes()), "its signature is of a kind that is not accepted"),
        (stranger.token(&right), "its signature is wrong"),
        (SigningKey::new("two").token(&right), "a key that the provider does not publish"),
        (key.token(&claims(&json!({ "exp": 1_000_000_000 }))), "it expired at 2001-09-09T01:46:40Z"),
        (key.token(&claims(&json!({ "nbf": 4_000_000_000_u64 }))), "it is not valid before 2096-10-02"),
        (key.token(&claims(&json!({ "aud": "another" }))), "it is for another audience"),
        (key.token(&claims(&json!({ "iss": "https://another.example.com" }))), "it is from another issuer"),
        (key.token(&claims(&json!({ "sub": "a\nb" }))), "its claim sub is no name"),
        ("x.y.z".to_owned(), "it is unknown, has expired, or is for another server"),
    ] {
        let (code, message) = refusal(&server, &token).await;
        assert_eq!(code, Code::Unauthenticated, "{message}");
        assert!(message.contains(cause), "{message}");
        assert_eq!(http::get_as_bearer(&server.http, "/jobs", &token).code, 401, "{cause}");
    }
    // A valid identity is no right.
    let (code, message) = refusal(&server, &key.token(&claims(&json!({ "sub": "bob" })))).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("--allow oidc:bob"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_key_of_the_provider_is_fetched_once_for_many_tokens() {
    let (dir, [old, new]) = (tempfile::tempdir().unwrap(), ["old", "new"].map(SigningKey::new));
    let provider = Provider::start(&[&old]);
    let server = server_of(&provider, &dir);
    let right = provider.claims(&json!({}));
    run(&server, &old.token(&right)).await.unwrap();
    let before = provider.fetches();
    // Anyone can make tokens that name an unknown key.
    let unknown = SigningKey::new("unknown").token(&right);
    for _ in 0..20 {
        refusal(&server, &unknown).await;
    }
    assert!(provider.fetches() <= before + 1, "{} after {before}", provider.fetches());
    provider.publish(&[&new]);
    while let Err(refused) = run(&server, &new.token(&right)).await {
        assert!(refused.message().contains("does not publish"), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, message) = refusal(&server, &old.token(&right)).await;
    assert!(message.contains("does not publish"), "it was withdrawn: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_verified_while_the_provider_is_away() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::new("one"));
    let provider = Provider::start(&[&key]);
    let token = key.token(&provider.claims(&json!({})));
    provider.set_away(true);
    let server = server_of(&provider, &dir);
    let (code, message) = refusal(&server, &token).await;
    assert_eq!(code, Code::Unavailable, "nothing is known of the token: {message}");
    provider.set_away(false);
    while let Err(refused) = run(&server, &token).await {
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    provider.set_away(true);
    run(&server, &token).await.unwrap();
    let (code, _) = refusal(&server, &SigningKey::new("two").token(&provider.claims(&json!({})))).await;
    assert_eq!(code, Code::Unauthenticated);
}

/// A real provider, and a server that trusts it.
struct World {
    provider: OidcProvider,
    setup: Setup,
    server: Server,
    /// Address of the pages.
    pages: String,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let pages = format!("127.0.0.1:{}", free_port());
    let provider = OidcProvider::start(&format!("http://{pages}/oidc/callback"));
    let setup = setup(&dir)
        .flag(format!("--oidc-issuer={}", provider.issuer))
        .flag(format!("--oidc-ca={}", provider.file("ca.crt")))
        .flag("--oidc-audience=sqlflow")
        .flag("--oidc-principal-claim=email")
        .flag("--allow=oidc:ana@example.com,group:oidc:authors")
        .flag("--oidc-client-id=sqlflow")
        .flag(format!("--oidc-client-secret-file={}", provider.file("secret")))
        .flag("--oidc-scopes=email,groups")
        .flag(format!("--http-listen={pages}"))
        .flag(format!("--public-url=http://{pages}"));
    World { provider, server: setup.start().unwrap(), setup, pages, _dir: dir }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_a_real_provider_is_a_principal() {
    let world = world();
    let token = |user, client| world.provider.id_token(user, client);
    let (ana, bob) = (token("ana", "sqlflow"), token("bob", "sqlflow"));
    let job = run(&world.server, &ana).await.unwrap();
    let listed = client(&world.server, &ana).await.list_jobs(ListJobsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().jobs[0].job_id, job);
    assert!(http::get_as_bearer(&world.pages, "/jobs", &ana).body.contains(&job));
    run(&world.server, &token("kim", "sqlflow")).await.expect("kim's group is allowed");
    let (code, message) = refusal(&world.server, &bob).await;
    assert!(code == Code::PermissionDenied && message.contains("--allow oidc:bob@example.com"), "{message}");
    // A program that gets ana's tokens must not be ana here.
    let (code, message) = refusal(&world.server, &token("ana", "other")).await;
    assert!(
        code == Code::Unauthenticated && message.contains("get a token for the audience sqlflow"),
        "{message}"
    );
    let (head, signature) = ana.rsplit_once('.').unwrap();
    let changed = signature.replacen(['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'], "x", 1);
    let (code, message) = refusal(&world.server, &format!("{head}.{changed}")).await;
    assert!(code == Code::Unauthenticated && message.contains("its signature is wrong"), "{message}");

    // Another authority's certificates.
    let dir = tempfile::tempdir().unwrap();
    let other = setup(&dir)
        .flag(format!("--oidc-issuer={}", world.provider.issuer))
        .flag(format!("--oidc-ca={}", world.provider.file("other.crt")))
        .flag("--oidc-audience=sqlflow")
        .flag("--allow=oidc:*");
    let (code, message) = refusal(&other.start().unwrap(), &ana).await;
    assert!(code == Code::Unavailable && message.contains("certificate"), "{message}");
}

impl World {
    /// Signs in at the provider as this user, until the provider leads back.
    fn begin(&self, browser: &mut Browser, to: &str, user: &str) -> Page {
        let begun = browser.get(&self.pages, &format!("/oidc/sign-in?to={to}"));
        let (host, path) = begun.leads_to().unwrap_or_else(|| panic!("{begun:?}"));
        for part in ["code_challenge_method=S256", "state=", "nonce=", "client_id=sqlflow"] {
            assert!(path.contains(part), "{path}");
        }
        self.provider.sign_in(browser, &host, &path, user, "/oidc/callback")
    }

    /// Goes where the provider leads.
    fn finish(&self, browser: &mut Browser, page: &Page) -> Page {
        let (_, path) = page.leads_to().unwrap_or_else(|| panic!("{page:?}"));
        browser.get(&self.pages, &path)
    }
}

const SESSION: &str = "sqlflow_session";

#[tokio::test(flavor = "multi_thread")]
async fn browser_signs_in_at_a_real_provider() {
    let world = world();
    let job = run(&world.server, &world.provider.id_token("ana", "sqlflow")).await.unwrap();
    let mut browser = world.provider.browser();
    let asked = browser.get(&world.pages, "/jobs");
    // The browser's user of this machine is known, and has no right.
    assert!(asked.answer.code == 403 && asked.answer.body.contains("/oidc/sign-in?to="), "{asked:?}");

    let back = world.begin(&mut browser, "/jobs", "ana");
    let signed_in = world.finish(&mut browser, &back);
    assert_eq!(signed_in.answer.code, 200, "{signed_in:?}");
    let cookie = signed_in.answer.values("set-cookie").find(|it| it.starts_with("sqlflow_session=")).unwrap();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200;"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let list = browser.get(&world.pages, "/jobs").answer;
    assert!(list.body.contains("oidc:ana@example.com") && list.body.contains(&job), "{list:?}");
    let opened = browser.get(&world.pages, &format!("/jobs/{job}"));
    assert_eq!(opened.answer.code, 303, "{opened:?}");

    // The session is for pages only, and every server of this state folder knows it.
    let session = browser.cookie(&world.pages, SESSION).unwrap().to_owned();
    assert_eq!(refusal(&world.server, &session).await.0, Code::Unauthenticated);
    let World { provider, setup, server, pages, _dir } = world;
    server.stop().unwrap();
    let world = World { server: setup.start().unwrap(), provider, setup, pages, _dir };
    assert_eq!(browser.get(&world.pages, "/jobs").answer.code, 200);

    browser.post(&world.pages, "/sign-out", "");
    assert_eq!(browser.cookie(&world.pages, SESSION), None);
    assert_eq!(browser.get(&world.pages, "/jobs").answer.code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_of_another_or_an_earlier_sign_in_is_refused() {
    let world = world();
    let [mut kim, mut eve] = std::array::from_fn(|_| world.provider.browser());
    let kims = world.begin(&mut kim, "//evil.example.com", "kim");
    let eves = world.begin(&mut eve, "/jobs", "ana");
    let has_session = |browser: &Browser| browser.cookie(&world.pages, SESSION).is_some();
    // Eve wants kim to work in another account.
    let before = kim.clone();
    let foreign = world.finish(&mut kim, &eves);
    assert!(foreign.answer.code == 400 && !has_session(&kim), "{foreign:?}");
    // Kim's answer, without the cookie of that browser.
    let mut nobody = world.provider.browser();
    let stolen = world.finish(&mut nobody, &kims);
    assert!(stolen.answer.code == 400 && !has_session(&nobody), "{stolen:?}");

    let right = world.finish(&mut kim, &kims);
    assert_eq!(right.answer.values("refresh").next(), Some("0;url=/jobs"), "{right:?}");
    assert!(right.answer.body.contains("oidc:kim@example.com"), "{right:?}");
    assert_eq!(kim.get(&world.pages, "/jobs").answer.code, 200, "by a group");
    assert_eq!(world.finish(&mut kim, &kims).answer.code, 400, "it is over in this browser");
    let mut again = before;
    let replayed = world.finish(&mut again, &kims);
    assert!(replayed.answer.body.contains("the provider refuses the code"), "{replayed:?}");
    assert!(!has_session(&again));

    let mut bob = world.provider.browser();
    let back = world.begin(&mut bob, "/jobs", "bob");
    let refused = world.finish(&mut bob, &back);
    assert!(refused.answer.code == 403 && !has_session(&bob), "{refused:?}");
    let (_, path) = eves.leads_to().unwrap();
    let state = path.split("state=").nth(1).and_then(|it| it.split('&').next()).unwrap();
    let denied = eve.get(&world.pages, &format!("/oidc/callback?error=access_denied&state={state}"));
    assert!(
        denied.answer.code == 400 && denied.answer.body.contains("answers with access_denied"),
        "{denied:?}"
    );
    assert!(!has_session(&eve));
}
