//! Cookies of a request.

use axum::http::{HeaderMap, header};

/// Values of the cookies with this name.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let pairs = cookies.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.filter_map(move |(found, value)| (found == name).then_some(value))
}
