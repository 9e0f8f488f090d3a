//! Sign-in at an OpenID Connect provider: the authorization code flow with PKCE.
//!
//! A sign-in begins with a cookie that only this browser has, from which state, nonce and code verifier are derived. So nobody
//! can end a sign-in that another browser began, and the server keeps nothing. It ends with a session of the browser.

mod sign_in;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use sqlflow_identity::{Caller, Principal};
use sqlflow_job_store::Secret;

use super::identity::refusal;
use super::links::now_seconds;
use super::pages::{Refusal, page};
use super::{Web, cookies};
use crate::access::oidc::{Oidc, check_sign_in, wrong};
use crate::access::{Refused, allowed};
use sign_in::{Begun, local_path};

/// Paths.
const BEGIN: &str = "/oidc/sign-in";
const CALLBACK: &str = "/oidc/callback";

/// Cookie of a sign-in that has begun, and its time limit.
const SIGN_IN: &str = "sqlflow_oidc_sign_in";
const SIGN_IN_OVER_TLS: &str = "__Host-sqlflow_oidc_sign_in";
const SIGN_IN_TIME: Duration = Duration::from_secs(600);

/// This server at the provider.
#[derive(Debug, Clone)]
pub struct OidcClient {
    /// Its name there.
    pub id: String,
    /// A public client has none.
    pub secret: Option<Secret>,
    /// What it requests.
    pub scope: String,
}

/// How people sign in.
#[derive(Clone)]
pub struct OidcSignIn(Arc<Inner>);

struct Inner {
    oidc: Arc<Oidc>,
    client: OidcClient,
    /// Who proves the identities of sessions.
    authority: String,
}

impl OidcSignIn {
    /// At this provider, as this client.
    #[must_use]
    pub fn new(oidc: Arc<Oidc>, client: OidcClient) -> Self {
        let authority = format!("{} {}", oidc.issuer(), client.id);
        Self(Arc::new(Inner { oidc, client, authority }))
    }
}

pub(super) fn routes() -> Router<Web> {
    Router::new().route(BEGIN, get(begin)).route(CALLBACK, get(finish))
}

/// Provider and client of sign-ins here.
pub(super) fn authority(web: &Web) -> Option<&str> {
    web.oidc.as_ref().map(|OidcSignIn(inner)| inner.authority.as_str())
}

/// Link to sign in, and to return to this path.
pub(super) fn sign_in_link(web: &Web, to: &str) -> Option<Markup> {
    let OidcSignIn(inner) = web.oidc.as_ref()?;
    let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
    let name = inner.oidc.issuer().split_once("://").map_or("", |(_, it)| it);
    Some(html! { p { a href={ (BEGIN) "?to=" (to) } { "Sign in at " (name) } } })
}

#[derive(Deserialize)]
struct Return {
    #[serde(default)]
    to: String,
}

/// Sends the browser to the provider.
async fn begin(State(web): State<Web>, Query(Return { to }): Query<Return>) -> Result<Response, Refusal> {
    let inner = configured(&web)?;
    let published = inner.oidc.published().await.map_err(|refused| refusal(&refused))?;
    let mut url =
        published.authorization.clone().ok_or_else(|| cannot("the provider has no sign-in", &web))?;
    let begun = Begun::new(local_path(&to), now_seconds() + SIGN_IN_TIME.as_secs());
    let redirect_uri = web.links.address(CALLBACK);
    let [state, nonce, challenge] =
        [begun.state(&web.links), begun.nonce(&web.links), begun.challenge(&web.links)];
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &inner.client.id)
        .append_pair("redirect_uri", &redirect_uri)
        .append_pair("scope", &inner.client.scope)
        .append_pair("state", &state)
        .append_pair("nonce", &nonce)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    let value = begun.seal(&web.links, &inner.authority);
    let cookie = begun_cookie(&web, &value, SIGN_IN_TIME);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(url.as_str())).into_response())
}

/// What the provider's page leads back with.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
    iss: Option<String>,
}

/// Begins a session, with the code that the browser brings.
async fn finish(State(web): State<Web>, Query(answer): Query<Answer>, headers: HeaderMap) -> Response {
    let found = begun(&web, &headers, &answer);
    let (inner, begun) = match found {
        Ok(found) => found,
        Err(refusal) => return refusal.into_response(),
    };
    let response = match signed_in(&web, inner, &begun, &answer).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    // Whatever came of it, this sign-in is over.
    let over = begun_cookie(&web, "", Duration::ZERO);
    (AppendHeaders([(header::SET_COOKIE, over)]), response).into_response()
}

/// The sign-in that this browser began, if the answer is for it.
fn begun<'a>(web: &'a Web, headers: &HeaderMap, answer: &Answer) -> Result<(&'a Inner, Begun), Refusal> {
    let inner = configured(web)?;
    let open = |value| Begun::unseal(&web.links, &inner.authority, value, now_seconds());
    let begun = cookies::values(headers, begun_name(web)).find_map(open);
    let begun = begun.filter(|it| it.is_state(&web.links, &answer.state));
    begun.map(|it| (inner, it)).ok_or_else(|| {
        cannot(
            "this browser has begun no such sign-in, or it took longer than ten minutes; sign in again",
            web,
        )
    })
}

async fn signed_in(web: &Web, inner: &Inner, begun: &Begun, answer: &Answer) -> Result<Response, Refusal> {
    if answer.iss.as_deref().is_some_and(|it| it != inner.oidc.issuer()) {
        return Err(cannot("the answer is from another provider; sign in again", web));
    }
    if !answer.error.is_empty() {
        let known =
            answer.error.len() <= 64 && answer.error.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        let error = if known { answer.error.as_str() } else { "an unknown error" };
        return Err(cannot(&format!("the provider answers with {error}; sign in again"), web));
    }
    let token = exchange(web, inner, begun, &answer.code).await?;
    let principal = principal(web, inner, begun, &token).await.map_err(|refused| refusal(&refused))?;
    let caller = web.access.caller_of(principal.clone());
    allowed(&caller).map_err(|refused| refusal(&refused))?;
    let session = web
        .sessions
        .begin_signed_in(&principal, &inner.authority, &web.access)
        .ok_or_else(|| cannot("the names of the groups are too long for a session; ask the operator", web))?;
    Ok(welcome(&caller, begun.to(), session))
}

async fn principal(web: &Web, inner: &Inner, begun: &Begun, token: &str) -> Result<Principal, Refused> {
    let client = &inner.client.id;
    let claims = inner.oidc.claims(token, std::slice::from_ref(client)).await?;
    check_sign_in(&claims, client, &begun.nonce(&web.links)).map_err(wrong)?;
    inner.oidc.principal(&claims)
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

/// The ID token for a code.
async fn exchange(web: &Web, inner: &Inner, begun: &Begun, code: &str) -> Result<String, Refusal> {
    let published = inner.oidc.published().await.map_err(|refused| refusal(&refused))?;
    let url = published.token.as_ref().ok_or_else(|| cannot("the provider exchanges no codes", web))?;
    let (form, basic) = request(web, &inner.client, begun, code, published.takes_basic);
    let basic = basic.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
    let answer = inner.oidc.post(url, form, basic).await;
    let answer = answer.map_err(|refused| refusal(&refused))?;
    if answer.status != StatusCode::OK {
        // The body may have details for the operator, and no secrets of this request. Anyone can cause the line: it
        // must not fill the server's log.
        let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
        tracing::debug!(status = %answer.status, said, "the OpenID Connect provider refuses a code");
        let why = "the provider refuses the code, which is for one use and a short time; sign in again";
        return Err(cannot(why, web));
    }
    let tokens: Tokens = serde_json::from_slice(&answer.body).map_err(|_| {
        cannot("the provider answers without an ID token; its operator must allow openid", web)
    })?;
    Ok(tokens.id_token)
}

/// The form that exchanges a code, and id and secret for basic authentication if the provider `takes_basic`.
fn request(
    web: &Web,
    client: &OidcClient,
    begun: &Begun,
    code: &str,
    takes_basic: bool,
) -> (String, Option<(String, String)>) {
    let secret = client.secret.as_ref().map(Secret::expose);
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    // The specification wants both encoded like a form before basic authentication.
    let basic = secret.filter(|_| takes_basic).map(|secret| (encoded(&client.id), encoded(secret)));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", code)
        .append_pair("redirect_uri", &web.links.address(CALLBACK))
        .append_pair("code_verifier", &begun.verifier(&web.links));
    if basic.is_none() {
        form.append_pair("client_id", &client.id);
        if let Some(secret) = secret {
            form.append_pair("client_secret", secret);
        }
    }
    (form.finish(), basic)
}

/// A page that leads on by itself. A redirect would still be the provider's, and strict cookies are not sent with it.
fn welcome(caller: &Caller, to: &str, session: String) -> Response {
    let body = html! {
        h1 { "Signed in" }
        p { "You are " code { (caller.name()) } ". " a href=(to) { "Continue" } }
    };
    let document = Html(page("Signed in", None, &body).into_string());
    ([(header::REFRESH, format!("0;url={to}")), (header::SET_COOKIE, session)], document).into_response()
}

fn configured(web: &Web) -> Result<&Inner, Refusal> {
    let missing = || {
        let body = html! { h1 { "Not here" } p { "This server has no sign-in at a provider." } };
        Refusal::new(StatusCode::NOT_FOUND, body)
    };
    web.oidc.as_ref().map(|OidcSignIn(inner)| &**inner).ok_or_else(missing)
}

fn cannot(why: &str, web: &Web) -> Refusal {
    let body = html! {
        h1 { "Cannot sign in" }
        p role="alert" { (why) }
        @if let Some(link) = sign_in_link(web, "/jobs") { (link) }
    };
    Refusal::new(StatusCode::BAD_REQUEST, body)
}

fn begun_name(web: &Web) -> &'static str {
    cookies::name(&web.links, SIGN_IN, SIGN_IN_OVER_TLS)
}

/// Cookie of a sign-in. Lax: the provider's page leads back here, which a strict cookie does not survive.
fn begun_cookie(web: &Web, value: &str, lifetime: Duration) -> String {
    cookies::set(&web.links, begun_name(web), value, "/", lifetime.as_secs(), "Lax")
}
