//! Who opens a page: by a bearer token, by a session of the browser, or by the connection, like gRPC clients.

use std::net::IpAddr;

use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use sqlflow_identity::{ANONYMOUS, Caller, Principal};

use super::pages::Refusal;
use super::{Web, oidc};
use crate::access::{Peer, Refused, allowed, bearer, is_loopback};

/// Whether a request comes from an administrator, or from the server's own user, who may read the server's log anyway.
#[derive(Clone, Copy)]
pub(super) struct IsOperator(pub(super) bool);

/// Finds the caller of each request, which is among its extensions afterwards. A wrong token is refused. A session that
/// has ended is ignored.
pub(super) async fn identify(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    if let Err(refusal) = check_host(&web, &request) {
        return refusal.into_response();
    }
    let headers = request.headers();
    let connected = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    // The user behind a connection of a proxy is the proxy's.
    let peer = connected
        .principal
        .clone()
        .filter(|_| is_loopback(&name(web.links.host())) && !is_forwarded(headers));
    let caller = match bearer(headers) {
        Some(token) => web.access.caller(Some(token), None).await,
        None => {
            let in_session = web.sessions.principal(headers, &web.access, oidc::authority(&web));
            web.access.caller(None, in_session.or(peer.clone()).as_ref()).await
        }
    };
    // Without the query, in which keys are.
    let path = request.uri().path().to_owned();
    let noted = |response: Response, name: &str| {
        web.access.refusals.note_page(name, &connected, &path, response.status());
        response
    };
    match caller {
        Ok(caller) => {
            let is_own = peer.is_some_and(|it| it == *web.access.own_user);
            request.extensions_mut().insert(IsOperator(caller.is_admin() || is_own));
            request.extensions_mut().insert(caller.clone());
            noted(next.run(request).await, caller.name())
        }
        Err(refused) => {
            let name = peer.as_ref().map_or(ANONYMOUS, Principal::name);
            noted(refusal(&refused).into_response(), name)
        }
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
    let form = |code, why: &str| sign_in_form(&web, code, Some(why));
    let caller = caller.map_err(|refused| match refused {
        // The token may be right.
        Refused::Unavailable(_) => refusal(&refused),
        Refused::Token | Refused::Wrong(_) | Refused::Anonymous | Refused::NotAllowed(_) => {
            form(StatusCode::UNAUTHORIZED, &refused.to_string())
        }
    })?;
    let caller = allowed(&caller).map_err(|refused| refusal(&refused))?;
    let cookie = caller.principal().and_then(|it| web.sessions.begin(it, token, &web.access));
    let too_long = || form(StatusCode::BAD_REQUEST, "the names of your groups are too long for a session");
    let cookie = cookie.ok_or_else(too_long)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/jobs")).into_response())
}

/// Ends the session.
pub(super) async fn sign_out(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refusal> {
    from_this_site(&headers)?;
    Ok(([(header::SET_COOKIE, web.sessions.end())], Redirect::to("/jobs")).into_response())
}

/// Whether the browser has a session, perhaps one that has ended.
pub(super) fn has_session(web: &Web, headers: &HeaderMap) -> bool {
    web.sessions.has_one(headers)
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
