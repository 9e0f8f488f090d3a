//! Admits the connections of clients. Until a caller may use the server, or has shown the token of a job, its connection
//! has the limits of one that is not admitted, and each principal has few connections.

use std::pin::Pin;
use std::task::{Context, Poll};

use sqlflow_identity::Caller;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::admission::{Admission, Resource};
use crate::connections::Bounds;

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
        let slot = match self.admission.take(Resource::Connection, &caller) {
            Ok(slot) => slot,
            Err(exceeded) => {
                return Box::pin(async move { Ok(Status::from(exceeded).into_http()) });
            }
        };
        if caller.is_allowed() {
            bounds.lift_with(slot);
            return Box::pin(self.inner.call(request));
        }
        let response = self.inner.call(request);
        let admission = self.admission.clone();
        Box::pin(async move {
            let response = response.await?;
            // The holder of a job's token.
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            if code == Code::Ok {
                // Who it is may be known only now, by a token in the message. Then it is a connection of theirs.
                let known = response.extensions().get::<Caller>().filter(|it| it.is_allowed());
                match known.map(|caller| admission.take(Resource::Connection, caller)) {
                    None => bounds.lift_with(slot),
                    Some(Ok(slot)) => bounds.lift_with(slot),
                    // It keeps the limits of one that is not admitted.
                    Some(Err(_)) => {}
                }
            }
            Ok(response)
        })
    }
}
