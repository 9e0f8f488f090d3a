//! What machines ask: whether this process lives, whether it can work, and its metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Web;

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Ready: the store answers, and the launcher may start attempts.
async fn ready(State(web): State<Web>) -> Response {
    let store = web.store.counts().await.map(drop).map_err(|error| error.to_string());
    let launcher = web.launcher.ready().await;
    let line = |name: &str, state: &Result<(), String>| match state {
        Ok(()) => format!("{name}: ok\n"),
        Err(why) => format!("{name}: {why}\n"),
    };
    let text = line("store", &store) + &line("launcher", &launcher);
    let is_ready = store.is_ok() && launcher.is_ok() && !web.shutdown.is_cancelled();
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

async fn metrics(State(web): State<Web>, headers: HeaderMap) -> Response {
    match web.store.counts().await {
        Ok(counts) => web.metrics.set_jobs(&counts),
        // The other figures are worth having all the same.
        Err(error) => tracing::warn!(%error, "jobs could not be counted"),
    }
    let asked = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (kind, text) = if asked.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", web.metrics.text())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", web.metrics.plain_text())
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
