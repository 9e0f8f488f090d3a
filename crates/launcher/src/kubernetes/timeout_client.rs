//! A client whose calls have an end: an apiserver may take a connection and never answer.

use std::time::Duration;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;

use sqlflow_text::with_causes;

/// Timeout of a call.
pub(super) const CALL_TIME: Duration = Duration::from_secs(10);

/// A client whose responses are complete within `limit`, or fail. For a watch only the beginning is limited; the
/// watcher has its own timeout for events.
pub(super) fn bounded(client: Client, limit: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let calls = tower::service_fn(move |request| call(client.clone(), request, limit));
    Client::new(calls, namespace)
}

async fn call(
    client: Client,
    request: Request<Body>,
    limit: Duration,
) -> Result<Response<Body>, kube::Error> {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|it| it == "watch=true");
    let answer = async {
        let answer = client.send(request).await?;
        if is_watch {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, Body::from(body.collect_bytes().await?)))
    };
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        // The client itself retries after 429 and 503.
        let why = format!("no response within {} s, or only 429 or 503", limit.as_secs());
        Err(kube::Error::Service(why.into()))
    })
}

/// The error of a call, for people.
pub fn in_words(error: &kube::Error) -> String {
    match error {
        // The API server's message.
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(error) => with_causes(error.as_ref()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{Api, ListParams, WatchParams};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    /// The Pods of an apiserver that answers each connection with this, and then says nothing more.
    async fn pods_of(answer: &'static str) -> Api<Pod> {
        sqlflow_tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                open.push(stream);
            }
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        Api::namespaced(bounded(Client::try_from(config).unwrap(), SOON), "default")
    }

    async fn error_of(answer: &'static str) -> String {
        let pods = pods_of(answer).await;
        in_words(&pods.list(&ListParams::default()).await.unwrap_err())
    }

    #[tokio::test]
    async fn silent_apiserver_times_out() {
        assert!(error_of("").await.contains("no response within"));
        assert!(
            error_of("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await.contains("no response within")
        );
    }

    #[tokio::test]
    async fn watch_may_be_silent_after_start() {
        let pods = pods_of("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
        let mut events = std::pin::pin!(pods.watch(&WatchParams::default(), "0").await.unwrap());
        let silent = tokio::time::timeout(SOON * 4, futures::StreamExt::next(&mut events)).await;
        assert!(silent.is_err(), "{silent:?}");
    }

    #[tokio::test]
    async fn refused_connection_reports_cause() {
        sqlflow_tls::install_provider();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", taken.local_addr().unwrap()).parse().unwrap());
        drop(taken);
        let pods: Api<Pod> =
            Api::namespaced(bounded(Client::try_from(config).unwrap(), CALL_TIME), "default");
        let words = in_words(&pods.list(&ListParams::default()).await.unwrap_err());
        assert!(words.contains("refused"), "{words}");
    }
}
