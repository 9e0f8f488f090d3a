//! Who opens a page: by a bearer token, by a session that began with one, or by the connection, like gRPC clients.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use sqlflow_identity::{Caller, Principal};

use super::pages::Refusal;
use super::{Web, cookies, oidc};
use crate::access::{Refused, allowed, bearer};

/// Cookie with the access token of a browser that signed in, and its lifetime. The token is verified with each request, so
/// that one that is revoked ends the session.
const COOKIE: &str = "sqlflow_session";
const COOKIE_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The principal of a connection.
#[derive(Clone)]
pub(super) struct Peer(pub(super) Option<Principal>);

/// Finds the caller of each request, which is among its extensions afterwards. A wrong token is refused, except one of
/// a session, which has ended then.
pub(super) async fn identify(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    if let Err(refusal) = check_host(&web, &request) {
        return refusal.into_response();
    }
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>().and_then(|it| it.0.clone());
    // The user behind a connection of a proxy is the proxy's.
    let peer = peer.filter(|_| is_loopback(web.links.host()) && !is_forwarded(headers));
    let caller = match (bearer(headers), session(headers)) {
        (Some(token), _) => web.access.caller(Some(token), None).await,
        (None, Some(token)) => match web.access.caller(Some(token), None).await {
            Err(Refused::Token | Refused::Wrong(_)) => without_token(&web, headers, peer.as_ref()).await,
            other => other,
        },
        (None, None) => without_token(&web, headers, peer.as_ref()).await,
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refusal(&refused).into_response(),
    }
}

/// The caller that signed in at a provider, or whose connection it is.
async fn without_token(web: &Web, headers: &HeaderMap, peer: Option<&Principal>) -> Result<Caller, Refused> {
    match oidc::session(web, headers) {
        Some(principal) => Ok(web.access.caller_of(principal)),
        None => web.access.caller(None, peer).await,
    }
}

pub(super) fn refusal(refused: &Refused) -> Refusal {
    let code = match refused {
        Refused::Token | Refused::Wrong(_) | Refused::Anonymous => StatusCode::UNAUTHORIZED,
        Refused::NotAllowed(_) => StatusCode::FORBIDDEN,
        Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, html! { h1 { "Cannot show this page" } p { (refused.to_string()) } })
}

/// The caller, or a form to sign in.
pub(super) fn signed_in<'a>(web: &Web, caller: &'a Caller) -> Result<&'a Caller, Refusal> {
    match allowed(caller) {
        Err(Refused::Anonymous) => Err(sign_in_form(web, StatusCode::UNAUTHORIZED, None)),
        // The user of this machine's browser may have another identity.
        Err(refused @ Refused::NotAllowed(_)) => {
            Err(sign_in_form(web, StatusCode::FORBIDDEN, Some(&refused.to_string())))
        }
        other => other.map_err(|refused| refusal(&refused)),
    }
}

fn sign_in_form(web: &Web, code: StatusCode, why: Option<&str>) -> Refusal {
    let body = html! {
        h1 { "Sign in" }
        @if let Some(why) = why { p role="alert" { (why) } }
        @if let Some(link) = oidc::sign_in_link(web, "/jobs") { (link) }
        form method="post" action="/sign-in" {
            label for="access-token" { "Access token" }
            input #access-token name="token" type="password" required autocomplete="off";
            button { "Sign in" }
        }
        p .dim { "It is the one that " code { "sqlflowctl" } " takes from SQLFLOW_ACCESS_TOKEN. A job's page also opens by the job's link." }
    };
    Refusal::new(code, body)
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    #[serde(default)]
    token: String,
}

/// Begins a session with an access token.
pub(super) async fn sign_in(
    State(web): State<Web>,
    headers: HeaderMap,
    Form(SignIn { token }): Form<SignIn>,
) -> Result<Response, Refusal> {
    from_this_site(&headers)?;
    let token = token.trim();
    let caller = web.access.caller(Some(token), None).await;
    let wrong = |why: &str| sign_in_form(&web, StatusCode::UNAUTHORIZED, Some(why));
    let caller = caller.map_err(|refused| wrong(&refused.to_string()))?;
    allowed(&caller).map_err(|refused| refusal(&refused))?;
    // Every token that is valid has none of these, which would end the cookie's value.
    if !token.bytes().all(|it| it.is_ascii_graphic() && !b";,\"\\".contains(&it)) {
        return Err(wrong("the token has characters that a cookie cannot hold"));
    }
    let seconds = COOKIE_LIFETIME.as_secs();
    let cookie =
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{}", secure(&web));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/jobs")).into_response())
}

/// Ends the session.
pub(super) async fn sign_out(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refusal> {
    from_this_site(&headers)?;
    let cookies = [ended_session(&web), oidc::ended_session(&web)].map(|it| (header::SET_COOKIE, it));
    Ok((AppendHeaders(cookies), Redirect::to("/jobs")).into_response())
}

/// Cookie that ends a session.
pub(super) fn ended_session(web: &Web) -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict{}", secure(web))
}

pub(super) fn secure(web: &Web) -> &'static str {
    if web.links.are_encrypted() { "; Secure" } else { "" }
}

/// Whether the browser has a session.
pub(super) fn has_session(web: &Web, headers: &HeaderMap) -> bool {
    session(headers).is_some() || oidc::session(web, headers).is_some()
}

fn session(headers: &HeaderMap) -> Option<&str> {
    cookies::values(headers, COOKIE).find(|token| !token.is_empty())
}

/// Refuses a form that a page of another site sends. Browsers say which site it is.
pub(super) fn from_this_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").and_then(|it| it.to_str().ok());
    match site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => {
            let body =
                html! { h1 { "Cannot take this form" } p { "It was sent by a page of another site." } };
            Err(Refusal::new(StatusCode::FORBIDDEN, body))
        }
    }
}

/// Refuses a request whose host is the name of another site: such a site's pages could point its name at this server,
/// and read what it answers. An address is no name.
fn check_host(web: &Web, request: &Request) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(|it| it.to_str().unwrap_or_default());
    let host = hosts.next().or_else(|| request.uri().authority().map(|it| it.as_str())).unwrap_or_default();
    // Of several, which would be meant?
    let host = if hosts.next().is_some() { "" } else { host };
    if is_open(request.uri().path()) || is_own_host(host, web.links.host()) {
        return Ok(());
    }
    let body = html! {
        h1 { "Unknown host" }
        p { "This server is not known as " code { (host) } "; its operator says with " code { "--public-url" } " where browsers find it." }
    };
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, body))
}

/// Whether a proxy says that it sends the request for somebody else.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let names = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
    names.iter().any(|name| headers.contains_key(*name))
}

/// Whether the host is a name or an address of this machine only.
fn is_loopback(host: &str) -> bool {
    let host = name(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Pages without anybody's data, which probes read by any name.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn is_own_host(host: &str, public: &str) -> bool {
    let host = name(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host == name(public))
}

/// The name in a host, without its port.
fn name(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_sites_are_not_its_own() {
        for (host, is_own) in [
            ("localhost:50080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:50080", true),
            ("[::1]:50080", true),
            ("10.1.2.3", true),
            ("sqlflow.example.com", true),
            ("sqlflow.example.com:443", true),
            ("evil.example.com", false),
            ("localhost.evil.com", false),
            ("127.0.0.1.evil.com", false),
            ("", false),
        ] {
            assert_eq!(is_own_host(host, "sqlflow.example.com:8443"), is_own, "{host}");
        }
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let from = |site: &'static str| {
            let value = header::HeaderValue::from_static(site);
            from_this_site(&HeaderMap::from_iter([(
                header::HeaderName::from_static("sec-fetch-site"),
                value,
            )]))
            .is_ok()
        };
        assert!(from("same-origin") && from("none") && from_this_site(&HeaderMap::new()).is_ok());
        assert!(!from("cross-site") && !from("same-site"));
    }
}
