//! HTTP: probes and metrics for operators, web pages for users.
//!
//! `links` makes and checks links, `session` sessions of browsers, which are `sealed` in `cookies`. `oidc` signs in at a provider. `identity` finds who opens a page, and `admit` lifts the limits of their connection. `view` reads a job's log for its page; `statements`, `downsampling` and `progress_bar` are parts of it,
//! and `tail` finds the last lines. `pages` renders HTML, `live` sends updates. `serve` is the protocol, `probes` and `shared_check` are for machines.

mod admit;
mod cookies;
mod downsampling;
mod identity;
mod links;
mod live;
mod log_text;
mod oidc;
mod pages;
mod probes;
mod progress_bar;
mod sealed;
mod serve;
mod session;
mod shared_check;
mod statements;
mod tail;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use sqlflow_job_store::Store;
use sqlflow_launcher::Launcher;
use sqlflow_result_log::ResultLog;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use sqlflow_tls::server::ServerTls;

use crate::access::Access;
use crate::admission::Admission;
use crate::connections::FIRST_BYTES_TIME;
use crate::idle::LastUse;
use crate::metrics::Metrics;

pub use links::Links;
pub use oidc::{OidcClient, OidcSignIn};
pub use probes::Checks;
pub use session::Sessions;

/// Timeout for open requests at shutdown.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// Dependencies of web pages.
#[derive(Clone)]
pub struct Web {
    /// State of jobs.
    pub store: Arc<dyn Store>,
    /// Output of jobs.
    pub log: Arc<dyn ResultLog>,
    /// Checks whether attempts can be launched.
    pub launcher: Arc<dyn Launcher>,
    /// Metrics of this server.
    pub metrics: Metrics,
    /// Links to web pages.
    pub links: Links,
    /// Sessions of browsers.
    pub sessions: Sessions,
    /// Address of a trace: a URL with `{trace}` in it; empty: none.
    pub trace_url: String,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// Cached views of jobs.
    pub views: JobViews,
    /// The checks behind probes and metrics.
    pub checks: Checks,
    /// Who may do what.
    pub access: Access,
    /// What one principal may use.
    pub admission: Admission,
    /// When somebody used the server.
    pub last_use: LastUse,
    /// How people sign in at an OpenID Connect provider, if they can.
    pub oidc: Option<OidcSignIn>,
}

pub use view::JobViews;

impl Web {
    /// Serves until the shutdown token is cancelled, then drains for a bounded time. With a listener for metrics, that one
    /// serves them and the probes to everybody.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<ServerTls>>,
        metrics: Option<TcpListener>,
    ) {
        let shutdown = self.shutdown.clone();
        let routes = self.routes();
        let users = Arc::clone(&self.access.local_users);
        let peers = serve::Peers { who: "browsers", tls, users: Some(users) };
        let pages = serve::serve(listener, routes, peers, FIRST_BYTES_TIME, shutdown.clone());
        let metrics = async {
            if let Some(listener) = metrics {
                let routes = probes::open_routes().with_state(self).layer(middleware::from_fn(secured));
                let peers = serve::Peers { who: "readers of metrics", tls: None, users: None };
                serve::serve(listener, routes, peers, FIRST_BYTES_TIME, shutdown.clone()).await;
            }
        };
        let serving = async { tokio::join!(pages, metrics) };
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_TIME).await;
        };
        tokio::select! {
            _ = serving => {}
            () = overdue => {}
        }
    }
}

impl Web {
    fn routes(&self) -> Router {
        let pages = Router::new().merge(pages::routes()).merge(oidc::routes()).merge(live::routes());
        Router::new()
            .merge(probes::routes())
            .merge(pages.layer(middleware::from_fn_with_state(self.clone(), note_use)))
            .layer(middleware::from_fn_with_state(self.clone(), admit::admit))
            .layer(middleware::from_fn_with_state(self.clone(), identity::identify))
            .with_state(self.clone())
            .layer(middleware::from_fn(secured))
    }
}

/// Nothing is loaded from other sites, framed by them, or sent to them: a page's address contains its key.
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

/// A page that is refused is no use of the server.
async fn note_use(State(web): State<Web>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status().is_success() {
        web.last_use.note();
    }
    response
}

/// Assets are part of this program and named by its version.
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
