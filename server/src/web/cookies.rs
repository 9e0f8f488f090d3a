//! Cookies: those of a request, and those that a response sets.

use axum::http::{HeaderMap, header};

use super::Links;

/// Values of the cookies with this name.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let pairs = cookies.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.filter_map(move |(found, value)| (found == name).then_some(value))
}

/// The name that a cookie has here: over HTTPS the `secure` one. Its prefix `__Host-` makes browsers keep the cookie from other
/// servers of the host and of its domain.
pub(super) fn name(links: &Links, plain: &'static str, secure: &'static str) -> &'static str {
    if links.are_encrypted() { secure } else { plain }
}

/// A cookie for the pages below this path, which no script reads. With zero seconds it ends one.
pub(super) fn set(
    links: &Links,
    name: &str,
    value: &str,
    path: &str,
    seconds: u64,
    same_site: &str,
) -> String {
    let secure = if links.are_encrypted() { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}")
}
