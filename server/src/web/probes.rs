//! Endpoints for machines: liveness, readiness, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use sqlflow_identity::Caller;

use super::Web;
use super::identity::IsOperator;
use super::shared_check::SharedCheck;

/// Time for which the launcher's answer is used again: it may have asked an API server, which strangers must not do.
const LAUNCHER_LIFETIME: Duration = Duration::from_secs(5);
/// Timeout for the launcher's answer: probes have a timeout of a few seconds themselves.
const LAUNCHER_TIME: Duration = Duration::from_secs(2);

/// Number of jobs, by the names of their states.
type JobCounts = Vec<(String, i64)>;

/// The checks behind probes and metrics.
#[derive(Clone)]
pub struct Checks {
    counts: Arc<SharedCheck<Result<JobCounts, String>>>,
    log: Arc<SharedCheck<Result<(), String>>>,
    launcher: Arc<SharedCheck<Result<(), String>>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            counts: Arc::new(SharedCheck::new(Duration::ZERO)),
            log: Arc::new(SharedCheck::new(Duration::ZERO)),
            launcher: Arc::new(SharedCheck::new(LAUNCHER_LIFETIME)),
        }
    }
}

/// For the address of browsers.
pub(super) fn routes() -> Router<Web> {
    probes().route("/metrics", get(metrics_of_admin))
}

/// For an address of their own.
pub(super) fn open_routes() -> Router<Web> {
    probes().route("/metrics", get(metrics))
}

fn probes() -> Router<Web> {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// Metrics name no job, but tell how many there are of whom.
async fn metrics_of_admin(
    web: State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    if caller.is_admin() {
        return metrics(web, headers).await;
    }
    let why = "cannot show metrics: this address shows them to administrators; send the access token of one, or read \
               the address of --metrics-listen\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

/// Readiness: the store and the log can be read. Whether jobs can be recorded and attempts launched is reported and
/// does not count. A server that left its Service because of a full disk, or an unavailable cluster, would make its
/// jobs' results unreachable, and Run would fail without a cause.
///
/// Probes learn whether it is ready. Why not, with addresses and paths, is for those who operate it.
async fn ready(State(web): State<Web>, viewer: Option<Extension<IsOperator>>) -> Response {
    let is_operator = viewer.is_some_and(|Extension(IsOperator(is_one))| is_one);
    let (store, log, launcher) = tokio::join!(counts(&web), log_state(&web), launcher_state(&web));
    let store = store.map(drop);
    let is_ready = store.is_ok() && log.is_ok() && !web.shutdown.is_cancelled();
    let text = match is_operator {
        true => {
            let lines = [("store", store), ("log", log), ("new jobs", web.store.can_record().await)];
            lines.into_iter().chain([("launcher", launcher)]).map(line).collect()
        }
        false if is_ready => "ready\n".to_owned(),
        false => "not ready\n".to_owned(),
    };
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

fn line((name, state): (&str, Result<(), String>)) -> String {
    match state {
        Ok(()) => format!("{name}: ok\n"),
        Err(why) => format!("{name}: {why}\n"),
    }
}

/// Number of jobs in each state.
async fn counts(web: &Web) -> Result<Vec<(String, i64)>, String> {
    let check = async { web.store.counts().await.map_err(|error| error.to_string()) };
    web.checks.counts.result(check).await
}

/// Whether logs can be read.
async fn log_state(web: &Web) -> Result<(), String> {
    let check = async { web.log.ready().await.map_err(|error| error.to_string()) };
    web.checks.log.result(check).await
}

/// Whether attempts can be launched. Also updates the metric.
async fn launcher_state(web: &Web) -> Result<(), String> {
    let check = async {
        let state = tokio::time::timeout(LAUNCHER_TIME, web.launcher.ready()).await;
        let state =
            state.unwrap_or_else(|_| Err(format!("it does not answer within {} s", LAUNCHER_TIME.as_secs())));
        web.metrics.set_launcher_ready(state.is_ok());
        state
    };
    web.checks.launcher.result(check).await
}

async fn metrics(State(web): State<Web>, headers: HeaderMap) -> Response {
    let (counts, _) = tokio::join!(counts(&web), launcher_state(&web));
    match counts {
        Ok(counts) => web.metrics.set_jobs(&counts),
        // The other metrics are useful without it.
        Err(error) => tracing::warn!(%error, "cannot count jobs"),
    }
    let asked = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (kind, text) = if asked.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", web.metrics.text())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", web.metrics.plain_text())
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
