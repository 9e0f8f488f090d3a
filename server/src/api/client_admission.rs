//! Admits the connections of clients. Until a caller may use the server, or has shown the token of a job, its connection
//! has the limits of one that is not admitted. Each principal has few connections, and so has the token of each job for
//! callers without another right.

use std::pin::Pin;
use std::task::{Context, Poll};

use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::admission::{Admission, Exceeded, Resource};
use crate::connections::Bounds;

/// The job whose token or link gave access to a call, among the extensions of its response.
#[derive(Debug, Clone)]
pub(super) struct OpenedJob(pub(super) JobId);

/// The layer. Requests have their [`Bounds`], and those of services with an identity their [`Caller`].
#[derive(Clone)]
pub(super) struct ClientAdmissionLayer(pub(super) Admission);

impl<S> Layer<S> for ClientAdmissionLayer {
    type Service = ClientAdmission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientAdmission { inner, admission: self.0.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub(super) struct ClientAdmission<S> {
    inner: S,
    admission: Admission,
}

impl<S, R> Service<http::Request<R>> for ClientAdmission<S>
where
    S: Service<http::Request<R>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        // Probes have no identity, and need none: their connections stay short.
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Box::pin(self.inner.call(request));
        };
        let bounds = request.extensions().get::<Bounds>().cloned().filter(|it| !it.are_lifted());
        let Some(bounds) = bounds else { return Box::pin(self.inner.call(request)) };
        if caller.is_allowed() {
            return match self.admission.take(Resource::Connection, &caller) {
                Ok(slot) => {
                    bounds.lift_with(slot);
                    Box::pin(self.inner.call(request))
                }
                Err(exceeded) => Box::pin(async move { Ok(Status::from(exceeded).into_http()) }),
            };
        }
        let response = self.inner.call(request);
        let admission = self.admission.clone();
        Box::pin(async move {
            let response = response.await?;
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            if code == Code::Ok
                && let Err(exceeded) = admit(&admission, &bounds, response.extensions())
            {
                return Ok(Status::from(exceeded).into_http());
            }
            Ok(response)
        })
    }
}

/// Admits the connection of a caller who showed a right in the message of its request, as the response to it says.
///
/// # Errors
/// There are as many connections by the token or link of the job as may be. What the call did is done; it may be repeated.
fn admit(admission: &Admission, bounds: &Bounds, response: &http::Extensions) -> Result<(), Exceeded> {
    if let Some(caller) = response.get::<Caller>().filter(|caller| caller.is_allowed()) {
        // Beyond the limit it keeps the limits of one that is not admitted: its job may be recorded.
        if let Ok(slot) = admission.take(Resource::Connection, caller) {
            bounds.lift_with(slot);
        }
    } else if let Some(OpenedJob(job)) = response.get::<OpenedJob>() {
        match admission.take_of_token(job) {
            Ok(slot) => bounds.lift_with(Some(slot)),
            // Another request of this connection was admitted meanwhile.
            Err(_) if bounds.are_lifted() => {}
            Err(exceeded) => return Err(exceeded),
        }
    }
    Ok(())
}
