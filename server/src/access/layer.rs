//! Finds the caller of each gRPC request, before its service. Every request but those of probes has a [`Caller`] among its
//! extensions afterwards; a service decides what it may do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sqlflow_identity::{ANONYMOUS, Principal};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{Access, Peer, allowed, bearer};

/// Services that serve everybody: probes have no identity.
pub(crate) const PROBES: &str = "/grpc.health.";
/// Services that decide themselves, since the token of a job is a right to it.
const OWN_RULES: [&str; 2] = ["/sqlflow.", "/proto."];

/// The layer.
#[derive(Clone)]
pub struct AccessLayer<F> {
    access: Access,
    /// The other end of a request's connection.
    peer: F,
}

impl<F> AccessLayer<F> {
    /// `peer` finds the other end of a request's connection among its extensions.
    pub fn new(access: Access, peer: F) -> Self {
        Self { access, peer }
    }
}

impl<S, F: Clone> Layer<S> for AccessLayer<F> {
    type Service = AccessService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService { inner, layer: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct AccessService<S, F> {
    inner: S,
    layer: AccessLayer<F>,
}

impl<S, F, R> Service<http::Request<R>> for AccessService<S, F>
where
    S: Service<http::Request<R>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Send + 'static,
    F: Fn(&http::Extensions) -> Option<Arc<Peer>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<R>) -> Self::Future {
        if request.uri().path().starts_with(PROBES) {
            return Box::pin(self.inner.call(request));
        }
        // The one that is ready serves the request; its copy waits for the next.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let access = self.layer.access.clone();
        let peer = (self.layer.peer)(request.extensions()).unwrap_or_default();
        let bearer = bearer(request.headers()).map(str::to_owned);
        let uri = request.uri().clone();
        Box::pin(async move {
            let note = |principal: &str, code| access.refusals.note_call(principal, &peer, uri.path(), code);
            let connected = peer.principal.as_ref();
            let caller = match access.caller(bearer.as_deref(), connected).await {
                Ok(caller) => caller,
                Err(refused) => {
                    let status = Status::from(refused);
                    note(connected.map_or(ANONYMOUS, Principal::name), status.code());
                    return Ok(status.into_http());
                }
            };
            if !OWN_RULES.iter().any(|service| uri.path().starts_with(service))
                && let Err(refused) = allowed(&caller)
            {
                let status = Status::from(refused);
                note(caller.name(), status.code());
                return Ok(status.into_http());
            }
            request.extensions_mut().insert(caller.clone());
            let response = inner.call(request).await?;
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            note(caller.name(), code);
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use sqlflow_identity::{Method, Policy};

    use super::*;

    /// Code of the response to this caller. The service behind the layer answers every request.
    async fn code(principal: Option<Principal>, path: &str) -> Code {
        let allowed = vec!["unix:ana".parse().unwrap()];
        let access = Access::new(Policy { allowed, ..Policy::default() }, Vec::new());
        let peer = Arc::new(Peer { principal, address: None });
        let layer = AccessLayer::new(access, move |_: &http::Extensions| Some(Arc::clone(&peer)));
        let mut service = layer.layer(tower::service_fn(|_: http::Request<()>| async {
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        }));
        let response = service.call(http::Request::post(path).body(()).unwrap()).await.unwrap();
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn service_without_rules_of_its_own_is_for_allowed_callers() {
        let unix = |name| Some(Principal::new(Method::Unix, name));
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(code(None, &path).await, Code::Unauthenticated, "{version}");
            assert_eq!(code(unix("eve"), &path).await, Code::PermissionDenied, "{version}");
            assert_eq!(code(unix("ana"), &path).await, Code::Ok, "{version}");
        }
        assert_eq!(code(None, "/grpc.health.v1.Health/Check").await, Code::Ok);
        assert_eq!(code(None, "/sqlflow.v1.SQLFlow/Fetch").await, Code::Ok, "the service decides");
    }
}
