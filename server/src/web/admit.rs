//! Admits the connections of browsers, as `api::client_admission` admits those of clients. Until a request comes from a
//! caller who may use the server, or has the key of a job's link, its connection has the limits of one that is not admitted.

use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use sqlflow_identity::Caller;
use sqlflow_job::JobId;

use super::Web;
use super::pages::Key;
use crate::admission::{Resource, Slot};
use crate::connections::Bounds;

/// Lifts the limits of a connection by whose request a right is shown. Every request has its [`Caller`].
pub(super) async fn admit(State(web): State<Web>, request: Request, next: Next) -> Response {
    let bounds = request.extensions().get::<Bounds>().filter(|it| !it.are_lifted()).cloned();
    if let Some(bounds) = bounds
        && let Some(admitted) = right(&web, &request)
    {
        bounds.lift_with(admitted.slot);
    }
    // A request without a right is answered too, perhaps with a form to sign in.
    next.run(request).await
}

/// A right, and the place that its connection takes; administrators need none.
struct Admitted {
    slot: Option<Slot>,
}

/// The right that a request shows. `None`: it shows none, or its holder has as many connections as may be.
fn right(web: &Web, request: &Request) -> Option<Admitted> {
    let caller = request.extensions().get::<Caller>()?;
    if caller.is_allowed() {
        return web.admission.take(Resource::Browser, caller).ok().map(|slot| Admitted { slot });
    }
    let (job, key) = link_of(request.uri())?;
    let is_right = web.links.opens(&key, &job);
    is_right.then(|| web.admission.take_of_link(&job)).flatten().map(|slot| Admitted { slot: Some(slot) })
}

/// The job and the key of an address below a job's page.
fn link_of(uri: &Uri) -> Option<(JobId, String)> {
    let job = uri.path().strip_prefix("/jobs/")?.split('/').next()?.parse().ok()?;
    let Query(Key { key }) = Query::try_from_uri(uri).ok()?;
    Some((job, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_is_found_in_every_address_of_a_job() {
        let job = JobId::generate();
        for rest in ["?key=a", "/live?after=1&key=a", "/search?q=x&key=a", "/display/3?key=a"] {
            let uri = format!("/jobs/{job}{rest}").parse().unwrap();
            assert_eq!(link_of(&uri), Some((job.clone(), "a".to_owned())), "{uri}");
        }
        for other in ["/jobs", "/jobs/x?key=a", "/healthz?key=a", "/"] {
            assert_eq!(link_of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
