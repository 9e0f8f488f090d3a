//! What machines ask: whether this process lives, whether it can work, and its metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
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

async fn metrics(State(web): State<Web>) -> Response {
    match web.store.counts().await {
        Ok(counts) => web.metrics.set_jobs(&counts),
        // The other figures are worth having all the same.
        Err(error) => tracing::warn!(%error, "jobs could not be counted"),
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], web.metrics.text()).into_response()
}
