//! The HTTP side: probes and metrics for who runs the server, pages for who waits for a job.
//!
//! `access` says who may see a job's page. `view` reads its log for it, of which `statements`, `series` and `bar` are parts, and
//! `tail` finds its last lines. `pages` writes HTML, `live` keeps it fresh, which `reader` notes; `serve` is the protocol.

mod access;
mod bar;
mod live;
mod log_text;
mod pages;
mod probes;
mod series;
mod serve;
mod statements;
mod tail;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use sqlflow_job_store::Store;
use sqlflow_launcher::Launcher;
use sqlflow_result_log::ResultLog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accept::FIRST_BYTES_TIME;
use crate::metrics::Metrics;

pub use access::Links;

/// How long open requests may take to end when the server shuts down.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// What the pages need.
#[derive(Clone)]
pub struct Web {
    /// The state of jobs.
    pub store: Arc<dyn Store>,
    /// What jobs said.
    pub log: Arc<dyn ResultLog>,
    /// Whether attempts can be started.
    pub launcher: Arc<dyn Launcher>,
    /// What is counted.
    pub metrics: Metrics,
    /// Who may see which page.
    pub links: Links,
    /// Where a trace is shown: a URL with `{trace}` in it; empty: nowhere.
    pub trace_url: String,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// What is known of jobs that were looked at.
    pub views: Views,
}

pub use view::Views;

impl Web {
    /// Serves until the shutdown token is cancelled, then drains for a bounded time.
    pub async fn serve(self, listener: TcpListener) {
        let shutdown = self.shutdown.clone();
        let routes = Router::new()
            .merge(probes::routes())
            .merge(pages::routes())
            .merge(live::routes())
            .with_state(self)
            .layer(middleware::from_fn(secured));
        let serving = serve::serve(listener, routes, FIRST_BYTES_TIME, shutdown.clone());
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_TIME).await;
        };
        tokio::select! {
            () = serving => {}
            () = overdue => {}
        }
    }
}

/// Nothing is loaded from elsewhere, framed by others, or told to others: a page's address is a key to it.
async fn secured(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Assets are a part of this program and named by its version.
fn assets() -> Router<Web> {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")], text)
        })
    };
    Router::new()
        .route("/assets/page.css", asset("text/css; charset=utf-8", include_str!("page.css")))
        .route("/assets/page.js", asset("text/javascript; charset=utf-8", include_str!("page.js")))
}
